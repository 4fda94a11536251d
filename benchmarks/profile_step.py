"""Where the time of a training step goes: its parts by the clock, and the operators of forward and backward.

    python benchmarks/profile_step.py --recipe vqvae --image_size 128

One thread, CPU seconds, on the bundled emoji. `--label` names what is measured, for a table of before and after: with
`PYTHONPATH=CHECKOUT` it is the smalti of another checkout.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from common import save
from torch.profiler import ProfilerActivity, profile

from smalti.apps.process import keep_freed_memory
from smalti.recipes import RECIPES
from smalti.training import loop
from smalti.training.state import TrainState

WARM, STEPS, PROFILED = 2, 4, 3
GROUPS = {  # of operators, by their names: the first that fits
    "convolutions": r"conv",
    "products": r"mm\b|mm_|addmm|linear|bmm",
    "bottleneck's kernels": r"^smalti::",
    "pooling, upsampling, folding": r"pool|upsample|shuffle|pad|interpol",
    "conversions and copies": r"copy|_to_copy|contiguous|clone|cat|stack",
}
OTHER = "elementwise, sums and the rest"


def group_of(name: str) -> str:
    """The group of an operator."""
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), OTHER)


class Clock:
    """CPU seconds of named parts, one list each."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds.setdefault(name, []).append(time.process_time() - start)


def one(recipe: str, size: int, batch: int, precision: str, options: dict, label: str) -> dict:
    """The profile of one recipe at one size."""
    experiment = RECIPES[recipe](data="emoji", image_size=size, **options).with_settings(
        batch_size=batch, validate_every=0, precision=precision
    )
    clock, operators = Clock(), dict.fromkeys([*GROUPS, OTHER], 0.0)
    with tempfile.TemporaryDirectory() as folder:
        task = loop._task(experiment, "cpu", Path(folder), False)
        state, batches = TrainState(task.model, experiment.optimizer), task.batches(0)
        for step in range(WARM + STEPS + PROFILED):
            profiled = step >= WARM + STEPS
            clock = Clock() if step == WARM else clock
            with profile(activities=[ProfilerActivity.CPU]) if profiled else Clock().part("") as found:
                with clock.part("data"):
                    given = next(batches)
                with clock.part("forward and loss"), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
                    task.before_step(step)
                    loss = task.loss(given, step)
                with clock.part("backward"):
                    loss.total.backward()
            with clock.part("optimiser"):
                state.optimizer_step(1e-3)
            with clock.part("codebook and averaged weights"):
                task.after_step()
                state.finish_step()
            for event in found.key_averages() if found is not None else ():
                if "::" in event.key:
                    operators[group_of(event.key)] += event.self_cpu_time_total
    parts = {name: round(1000 * statistics.median(seconds[:STEPS]), 2) for name, seconds in clock.seconds.items()}
    total = sum(operators.values())
    result = {
        "workload": f"{label}: {recipe}, {size} px, batch {batch}, {precision}",
        "milliseconds": round(sum(parts.values()), 1),
        "parts": parts,
        "operators": {name: round(value / total, 3) for name, value in operators.items()},
        "threads": torch.get_num_threads(),
    }
    print(f"{result['workload']}: {result['milliseconds']} ms a step", flush=True)
    for name, value in parts.items():
        print(f"  {name:<32} {value / result['milliseconds']:6.1%}")
    for name, share in result["operators"].items():
        print(f"    {name:<30} {share:6.1%} of forward and backward")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vqvae")
    parser.add_argument("--image_size", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--pixels", type=int, default=8 * 128 * 128, help="of a batch")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument(
        "--options", nargs="*", default=["stride=8", "codebook_size=8192"], help="of the recipe: NAME=INT"
    )
    parser.add_argument("--label", default="now")
    parser.add_argument("--out", default="benchmarks/results/profile_step.json")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    options = {name: int(value) for name, _, value in (option.partition("=") for option in given.options)}
    save(
        [
            one(given.recipe, size, max(1, given.pixels // size**2), precision, options, given.label)
            for size in given.image_size
            for precision in given.precision
        ],
        Path(given.out),
    )


if __name__ == "__main__":
    main()
