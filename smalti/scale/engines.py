"""The engines that run workers: processes on this machine, Daft, or Ray. All do the same units by the same `Worker`.

An engine is a function of the work, its units and a number of workers, and gives what became of each unit. What moves
through it are units, a few numbers each: images and codes never do, so that nothing has to be held back or spilled.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, Literal, get_args

import torch

from smalti.errors import SmaltiError, one_line
from smalti.scale.worker import Done, Unit, Work, Worker

EngineName = Literal["local", "daft", "ray"]
OBJECT_STORE_BYTES = 128 << 20  # of a Ray that is started here; units need next to nothing of it

BLOCKS_OF_A_WORKER = 64  # units in a block go to one worker
FAILED = "--engine {} failed; the same command goes on from what is done"

_start: Work | None = None  # of this process
_worker: Worker | None = None


def local(work: Work, units: list[Unit], workers: int) -> Iterator[Done]:
    """Processes on this machine, each with a tokenizer of its own; one worker is this process."""
    if workers == 1:
        threads = torch.get_num_threads()
        try:
            yield from map(Worker(work), units)
        finally:
            torch.set_num_threads(threads)
        return
    spawn = multiprocessing.get_context("spawn")
    numbers = spawn.Queue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(work, numbers))
    try:
        waiting: set[Future[Done]] = set()
        rest = iter(units)
        for unit in rest:
            waiting.add(pool.submit(_do, unit))
            if len(waiting) >= 2 * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (own.result() for own in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (own.result() for own in done)
    except BrokenProcessPool as error:
        what = "a worker died (killed, or out of memory)"
        raise SmaltiError(
            f"{what}; the same command goes on from what is done, perhaps with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: Work, numbers: Any) -> None:
    """Of a new process: go when the one that started it is gone, and load the tokenizer when there is a unit."""
    global _start
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _start = (
        work if work.device != "cuda" else replace(work, device=f"cuda:{numbers.get() % torch.cuda.device_count()}")
    )


def _do(unit: Unit) -> Done:
    global _worker
    if _worker is None:
        assert _start is not None
        try:
            _worker = Worker(_start)
        except SmaltiError as error:
            return Done(error=str(error))
    return _worker(unit)


def daft(work: Work, units: list[Unit], workers: int) -> Iterator[Done]:
    """Daft: on this machine, or on the Ray cluster that DAFT_RUNNER=ray and RAY_ADDRESS name."""
    try:
        import daft as library  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SmaltiError("--engine daft needs Daft: pip install 'smalti[scale]'") from error
    done = {"images": library.DataType.int64(), "bad": library.DataType.int64(), "error": library.DataType.string()}

    @library.cls(max_concurrency=workers, gpus=int(work.device.startswith("cuda")), use_process=workers > 1)
    class Actor:
        def __init__(self, work: Work):
            self.worker = Worker(work)

        @library.method(return_dtype=library.DataType.struct(done))
        def do(self, part: int, shard: int, only: bool) -> dict[str, Any]:
            return self.worker(Unit(part, shard, only))._asdict()

    columns = {name: [getattr(unit, name) for unit in units] for name in Unit._fields}
    frame = library.from_pydict(columns).into_batches(1)
    made: Any = Actor(work).do(*(library.col(name) for name in Unit._fields))  # an expression
    frame = frame.select(made.alias("done"))
    with one_line("--engine daft", FAILED.format("daft")):
        for row in frame.iter_rows():
            yield Done(**row["done"])


def ray(work: Work, units: list[Unit], workers: int) -> Iterator[Done]:
    """Ray Data: an actor pool on the cluster that RAY_ADDRESS names, or on one that is started here."""
    try:
        import ray as library  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SmaltiError("--engine ray needs Ray: pip install 'smalti[scale]'") from error
    if not library.is_initialized():
        here: dict[str, Any] = {"num_cpus": workers + 1, "object_store_memory": OBJECT_STORE_BYTES}
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 otherwise: last of all where others work too
        more = {} if os.environ.get("RAY_ADDRESS") else here
        library.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR", **more)
    library.data.DataContext.get_current().enable_progress_bars = False
    rows = [unit._asdict() for unit in units]
    gpus = {"num_gpus": 1} if work.device.startswith("cuda") else {}
    blocks = min(len(rows), BLOCKS_OF_A_WORKER * workers)
    made = library.data.from_items(rows, override_num_blocks=blocks).map(
        RayWorker, fn_constructor_args=(work,), compute=library.data.ActorPoolStrategy(size=workers), num_cpus=1, **gpus
    )
    with one_line("--engine ray", FAILED.format("ray")):
        for row in made.iter_rows():
            yield Done(**row)


class RayWorker:
    """A worker as Ray calls it, a unit at a time."""

    def __init__(self, work: Work):
        self.worker = Worker(work)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What became of a unit."""
        return self.worker(Unit(**row))._asdict()


ENGINES: dict[str, Callable[[Work, list[Unit], int], Iterator[Done]]] = {"local": local, "daft": daft, "ray": ray}
assert set(ENGINES) == set(get_args(EngineName))
