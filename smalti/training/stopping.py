"""Ctrl-C and SIGTERM: a step is always finished first."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from smalti import processes


class Interrupted(KeyboardInterrupt):
    """Interrupted by a signal, after writing a checkpoint; the same command resumes the run."""


@contextlib.contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event set by Ctrl-C and SIGTERM, so that a step is always finished; a second Ctrl-C interrupts at once.

    Of several processes it does not: each gets a Ctrl-C from the terminal and another one from torchrun.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set() and processes.launched() == 1:
            raise KeyboardInterrupt
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
