"""An optimiser step of the training loop, plain and with --compile, in turns: CPU milliseconds on one thread.

python benchmarks/compiled_step.py --precision bf16
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from smalti.apps.process import keep_freed_memory
from smalti.ops.precision import arithmetic
from smalti.recipes import RECIPES
from smalti.training import loop
from smalti.training.state import TrainState
from smalti.training.stepping import Trainer

WARM, STEPS = 3, 30


def side(recipe: str, size: int, precision: str, compiled: bool) -> Callable[[], float]:
    """A step, which gives its CPU milliseconds; the first ones are done, and their seconds by the clock told."""
    torch.manual_seed(0)
    experiment = RECIPES[recipe](data="emoji", image_size=size).with_settings(validate_every=0, precision=precision)
    task = loop._task(experiment, "cpu", Path(tempfile.mkdtemp()), False)
    state, batches = TrainState(task.model, experiment.optimizer, experiment.run.precision), task.batches(0)
    if compiled:
        task.compile()
    trainer = Trainer(experiment, task, state, functools.partial(arithmetic, experiment.run.precision, "cpu"))

    def run() -> float:
        start = time.process_time()
        trainer.step(batches, state.step)
        return 1000 * (time.process_time() - start)

    start = time.perf_counter()
    for _ in range(WARM):
        run()
    print(f"{'compiled' if compiled else 'plain'}: first {WARM} steps {time.perf_counter() - start:.1f} s", flush=True)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vqvae")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    sides = {name: side(given.recipe, given.image_size, given.precision, name == "compiled")
             for name in ("plain", "compiled")}  # fmt: skip
    milliseconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(STEPS):
        for name, run in sides.items():
            milliseconds[name].append(run())
    for name, values in milliseconds.items():
        print(f"{name}: median {statistics.median(values):.1f} ms a step, {min(values):.1f} to {max(values):.1f}")


if __name__ == "__main__":
    main()
