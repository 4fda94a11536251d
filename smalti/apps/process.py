"""What the command line sets for its whole process: how threads wait, and what becomes of freed memory."""

import ctypes
import os

SPINS = "10000"  # turns of the loop in which OpenMP's threads wait for each other before they sleep
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def prepare() -> None:
    """Both; to be called before torch is imported."""
    wait_less()
    keep_freed_memory()


def wait_less() -> None:
    """Beside a busy process, threads that wait in a loop, 300,000 turns as OpenMP has it, burn the cores that are left.

    See benchmarks/process.py. Unless the user has said how threads wait.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def keep_freed_memory() -> None:
    """Large blocks that are freed stay with the process.

    glibc gives them back to the system and takes them again in the next step, page by page: thousands of page faults,
    see benchmarks/process.py. Unless the user has said what malloc does; without effect where there is no glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return
    mallopt(MMAP_THRESHOLD, 1 << 30)
    mallopt(TRIM_THRESHOLD, (1 << 31) - 1)
