"""What validation costs: its share of the time of a training, at the defaults of a recipe.

    make bench-validation

Every round trains the recipe `dvae` on emoji and times the validations inside the run, with the reading of their
images. The difference between a run with and a run without them would be smaller than what neighbours on the machine
change from one run to the next.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import cpu_times, save

from smalti.apps.process import keep_freed_memory
from smalti.recipes import dvae
from smalti.training import loop, stepping, tasks


@contextmanager
def timed(module: Any, name: str) -> Iterator[list[float]]:
    """The seconds that every call of a module's function takes."""
    function, seconds = getattr(module, name), []

    def run(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds.append(time.perf_counter() - start)

    with patch.object(module, name, run):
        yield seconds


def shares(settings: dict[str, Any]) -> tuple[float, float, list[float], float]:
    """One training: seconds in all, of reading the held-out images, of each validation, and the neighbours' cores."""
    with tempfile.TemporaryDirectory() as folder:
        start, (busy, own) = time.perf_counter(), cpu_times()
        with timed(stepping, "validated") as validations, timed(tasks, "held_out") as reading:
            loop.train(dvae().with_settings(**settings), Path(folder) / "run", progress=False)
        seconds, (busy_after, own_after) = time.perf_counter() - start, cpu_times()
    return seconds, sum(reading), validations, max(0.0, (busy_after - busy) - (own_after - own)) / seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=dvae().run.steps, help="fewer weigh the one of the last step more")
    parser.add_argument("--out", default="benchmarks/results/validation.json")
    arguments = parser.parse_args(argv)
    keep_freed_memory()
    settings = {"steps": arguments.steps}
    rounds = [shares(settings) for _ in range(arguments.rounds)]
    run = dvae().with_settings(**settings).run
    found = [(reading + sum(validations)) / seconds for seconds, reading, validations, _ in rounds]
    result = {
        "workload": f"dvae on emoji, {run.steps} steps of {run.batch_size}",
        "every": run.every("validate"),
        "images": run.validation_images,
        "validations": len(rounds[0][2]),
        "seconds": round(statistics.median(seconds for seconds, *_ in rounds), 1),
        "seconds_of_a_validation": round(statistics.median(one for _, _, each, _ in rounds for one in each), 3),
        "seconds_of_reading": round(statistics.median(reading for _, reading, *_ in rounds), 3),
        "share": round(statistics.median(found), 5),
        "range": [round(min(found), 5), round(max(found), 5)],
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "neighbour_load_cores": round(statistics.median(load for *_, load in rounds), 2),
    }
    low, high = result["range"]
    print(
        f"{result['workload']}: {result['validations']} validations of {run.validation_images} images take "
        f"{result['share']:.2%} of the time ({low:.2%} to {high:.2%})"
    )
    save([result], Path(arguments.out))


if __name__ == "__main__":
    main()
