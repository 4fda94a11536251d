"""A run's folder is trained by one process at a time."""

import contextlib
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from smalti import processes
from smalti.errors import SmaltiError

LOCK = ".lock"  # in the run's folder, while it is trained; says by whom


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which must exist; the kernel releases it when the process dies.

    Of processes that train together the first holds it for all. On a file system without locks a warning says so.

    Raises:
        SmaltiError: another process, or another thread, trains into the folder.
    """
    with processes.in_turn():
        file = _acquired(run / LOCK, run) if processes.is_first() else None
    if file is None:
        yield
        return
    try:
        file.write(json.dumps(_self()))
        file.flush()
        yield
    finally:
        (run / LOCK).unlink(missing_ok=True)  # before it is released, so that nobody takes a lock on a file that goes
        file.close()


def _acquired(path: Path, run: Path) -> IO[str] | None:
    """The opened and locked file, empty; None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None
    while True:
        try:
            file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
        except OSError as error:
            what = f"cannot write {path}: {error.strerror or 'it is no file'}"
            raise SmaltiError(f"{what}; remove it, or choose another --out") from error
        try:
            if fcntl is None:
                raise OSError(0, "this system has no flock")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            with file:
                raise SmaltiError(f"{run} {_trained_by(file.read())}; wait for it, or choose another --out") from error
        except OSError as error:
            file.close()
            path.unlink(missing_ok=True)
            what = f"{run} cannot be locked here ({error.strerror})"
            warnings.warn(f"{what}; see to it that nothing else trains into it", stacklevel=4)
            return None
        if _same(file, path):  # or whoever had it removed it in between
            file.truncate(0)
            return file
        file.close()


def _same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _self() -> dict[str, object]:
    return {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _trained_by(text: str) -> str:
    """What a lock file says, for an error."""
    try:
        return "is being trained by process {process:d} on {host:.60} since {since:.20}".format(**json.loads(text))
    except (ValueError, KeyError, TypeError):  # it was just made
        return "is being trained by another process"
