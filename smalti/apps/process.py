"""The process of the command line: OpenMP's spin-wait and malloc's thresholds before torch is imported, and its end."""

import atexit
import ctypes
import os
import sys
from typing import NoReturn

from smalti import processes

SPINS = "10000"  # iterations of OpenMP's spin-wait before a thread sleeps
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def wait_less() -> None:
    """Shorten OpenMP's spin-wait, unless the user has set it.

    The default of 300,000 iterations occupies cores that other processes could use; see benchmarks/process.py.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def keep_freed_memory() -> None:
    """Keep large freed blocks in the process, unless the user has configured malloc; no effect without glibc.

    glibc otherwise returns them to the system and faults them in again at the next step: thousands of page faults,
    see benchmarks/process.py.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return
    mallopt(MMAP_THRESHOLD, 1 << 30)
    mallopt(TRIM_THRESHOLD, (1 << 31) - 1)


def leave(status: int) -> NoReturn:
    """End this process; one of several ends without taking the interpreter down.

    A thread of PyTorch's that still wants the interpreter then aborts the process ("terminate called without an active
    exception"), once in some twenty runs, and torchrun takes a training that has ended well for one that has failed.
    """
    if processes.launched() > 1:
        atexit._run_exitfuncs()  # what hooks and libraries have registered
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
