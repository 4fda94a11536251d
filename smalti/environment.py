"""Where something runs: version and commit of smalti, PyTorch, kernels, threads, device."""

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

import smalti
from smalti.ops.native import kernels

HOME = Path(__file__).parent
COMMIT = HOME / "commit.txt"  # filled by `git archive`, from which releases are made


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a measurement should say of where it was made, as plain data.

    Args:
        device: of PyTorch; its name is told.
    """
    native = kernels()
    return {
        "smalti": smalti.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "kernels": native.variant if native else "off",
        "threads": torch.get_num_threads(),
    }


@cache
def commit() -> str:
    """The commit of these sources, "-dirty" after it where files differ from it; "unknown" of sources without one."""
    kept = COMMIT.read_text(encoding="ascii").strip() if COMMIT.exists() else ""
    if kept and not kept.startswith("$"):
        return kept
    if not (HOME.parent / ".git").exists():  # what git found would be another project's
        return "unknown"
    git = ["git", "-C", str(HOME), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    except OSError:  # no git on this machine
        return "unknown"
