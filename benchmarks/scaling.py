"""How many images a second two processes of one thread train, beside one process of one thread.

    make bench-scaling

Each round trains the recipe by two processes under torchrun, by one with the same batch as both have together, and by
one with the batch of each, and takes the median speed of the lines of metrics.jsonl but the first. Only a machine with
two idle cores says anything: a process that has to wait for its core holds the other up.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import save

from smalti.training.log import read_metrics

LINES = 10


def speed(count: int, recipe: str, size: int, batch: int, steps: int) -> float:
    """Images a second."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"data": "emoji", "out": f"{folder}/run", "image_size": size, "batch_size": batch, "steps": steps}
        settings |= {"log_every": steps // LINES, "checkpoint_every": steps, "validate_every": 0, "sample_every": 0}
        flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        words = ["-m", "smalti", "train", recipe, *flags]
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *launch, *words], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        lines = read_metrics(Path(folder) / "run" / "metrics.jsonl")
        return statistics.median(line["images_per_second"] for line in lines[1:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vqvae")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64, help="of all processes together")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="benchmarks/results/scaling.json")
    given = parser.parse_args(argv)
    size, batch, count = given.size, given.batch, given.processes
    sides = {"several": (count, batch), "one": (1, batch), "one_of_each": (1, batch // count)}
    rounds: list[dict[str, float]] = []
    for turn in range(given.rounds):
        order = [*sides][turn % 3 :] + [*sides][: turn % 3]
        rounds.append({side: speed(sides[side][0], given.recipe, size, sides[side][1], given.steps) for side in order})
    same, each = ([own["several"] / own[side] for own in rounds] for side in ("one", "one_of_each"))
    result = {
        "workload": f"{given.recipe}, emoji at {size} px, batch {batch}, {count} processes of 1 thread",
        **{side: round(statistics.median(own[side] for own in rounds), 1) for side in sides},
        "ratio": round(statistics.median(same), 2),
        "range": [round(min(same), 2), round(max(same), 2)],
        "ratio_of_each": round(statistics.median(each), 2),
        "range_of_each": [round(min(each), 2), round(max(each), 2)],
        "rounds": given.rounds,
    }
    print(
        f"{result['workload']}: {result['several']} images/s, {result['ratio']} x those of one with "
        f"that batch ({result['one']}), {result['ratio_of_each']} x with the batch of each ({result['one_of_each']})"
    )
    save([result], Path(given.out))


if __name__ == "__main__":
    main()
