"""What all drivers share: every mutant is tried under limits of time and memory, and what became of it is counted.

A driver is a module `drive_NAME.py` beside this file with

    prepare(folder) -> state          makes good files in a fresh folder, and whatever an attempt needs
    attempt(state, rng) -> str        makes one mutant by the numpy generator and tries it; a word for what became of it
    SHORT = 200                       attempts in the default test suite, for about a second

A clear error is a `SmaltiError` of one line of at most 300 characters. A `Fault` says that something went wrong
silently (a wrong image, a test image in train). Those, other exceptions, deaths, hangs, and attempts that take more
than 3 s or 1 GB are faults. Attempt number N depends on N alone.

    python -m tests.fuzz.run NAME=100000        in a process of its own, watched from outside
"""

import collections
import importlib
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

from smalti.errors import SmaltiError

SECONDS, MEGABYTES, HUNG_SECONDS, LONGEST_ERROR = 3.0, 1024, 30.0, 300


class Fault(AssertionError):
    """Something went wrong without an error."""


def drivers() -> list[str]:
    """The names of all drivers."""
    return sorted(path.stem.removeprefix("drive_") for path in Path(__file__).parent.glob("drive_*.py"))


def driver(name: str) -> ModuleType:
    """The module of a driver."""
    return importlib.import_module(f"{__package__}.drive_{name}")


def outcome(attempt: Callable, state: object, number: int) -> str:
    """What became of attempt `number`; a fault begins with FAULT."""
    started, before = time.process_time(), _peak_mb()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            became = attempt(state, np.random.default_rng(number))
    except SmaltiError as error:
        text = str(error)
        clear = "\n" not in text and len(text) <= LONGEST_ERROR
        became = (
            f"refused: {type(error).__name__}"
            if clear
            else f"FAULT: an error of {len(text)} characters: {text[:200]!r}"
        )
    except Fault as error:
        became = f"FAULT: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what Rust panics with is no Exception
        where = traceback.extract_tb(error.__traceback__)[-1]
        became = f"FAULT: {type(error).__name__} {str(error)[:100]!r} in {Path(where.filename).name}:{where.lineno}"
    seconds, megabytes = time.process_time() - started, _peak_mb() - before
    if seconds > SECONDS:
        became = f"FAULT: {seconds:.1f} s, then {became}"
    if megabytes > MEGABYTES:
        became = f"FAULT: {megabytes:,} MB more, then {became}"
    return became


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run(name: str, count: int, first: int = 0) -> Mapping[str, int]:
    """Try `count` mutants of a driver in a process of its own; after a death or a hang another one goes on."""
    became: collections.Counter[str] = collections.Counter()
    context, number, last = multiprocessing.get_context("spawn"), first, first + count
    with tqdm(total=count, desc=name, mininterval=5, file=sys.stderr) as bar:
        while number < last:
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(name, number, last, sender))
            child.start()
            sender.close()
            patience = 20 * HUNG_SECONDS  # the child makes its files first
            while number < last:
                try:
                    if not receiver.poll(patience):
                        child.kill()
                        raise EOFError
                    report = receiver.recv()
                except EOFError:
                    child.join()
                    if patience > HUNG_SECONDS:
                        raise RuntimeError(f"the driver {name} could not make its files") from None
                    became[f"FAULT: attempt {number} ended the process, exit status {child.exitcode}"] += 1
                    number += 1
                    bar.update()
                    break
                patience = HUNG_SECONDS
                if report != "ready":
                    became[report if not report.startswith("FAULT") else f"{report} (attempt {number})"] += 1
                    number += 1
                    bar.update()
            child.join()
    return became


def _child(name: str, first: int, last: int, sender) -> None:
    module = driver(name)
    with tempfile.TemporaryDirectory() as folder:
        state = module.prepare(Path(folder))
        sender.send("ready")
        for number in range(first, last):
            sender.send(outcome(module.attempt, state, number))


def changed_bytes(data: bytes, rng: np.random.Generator, *, front: int = 60) -> bytes:
    """A file with one to three changes: bytes set, bits flipped, bytes removed, doubled or added.

    More than half of the changes lie in the first `front` bytes, where the headers are.
    """
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        end = min(len(changed), front) if rng.random() < 0.6 else len(changed)
        place = int(rng.integers(0, max(1, end)))
        match int(rng.integers(0, 5)):
            case 0 if changed:
                changed[place % len(changed)] = int(rng.integers(0, 256))
            case 1 if changed:
                changed[place % len(changed)] ^= 1 << int(rng.integers(0, 8))
            case 2:
                del changed[place : place + int(rng.integers(1, 9))]
            case 3:
                changed[place:place] = changed[place : place + int(rng.integers(1, 9))]
            case _:
                changed[place:place] = rng.bytes(int(rng.integers(1, 5)))
    return bytes(changed)
