"""How much memory this process takes, as Linux counts it."""

from pathlib import Path
from typing import Literal


def reset_peak() -> bool:
    """Start measuring the peak again; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def memory_bytes(name: Literal["VmHWM", "VmRSS"]) -> int:
    """The peak since the last `reset_peak` (VmHWM), or what is in use now (VmRSS)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
