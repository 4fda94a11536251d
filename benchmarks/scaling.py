"""How many images a second two processes of one thread train, beside one process of one thread.

    make bench-scaling

Each round trains the recipe twice, by one process and by two under torchrun, with the same batch of all processes
together, and takes the median speed of the lines of metrics.jsonl but the first. Only a machine with two idle cores
says anything.
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
        subprocess.run([sys.executable, *launch, *words], env=environment, check=True, capture_output=True)
        lines = read_metrics(Path(folder) / "run" / "metrics.jsonl")
        return statistics.median(line["images_per_second"] for line in lines[1:])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vqvae")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32, help="of all processes together")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="benchmarks/results/scaling.json")
    given = parser.parse_args(argv)
    work, rounds = (given.recipe, given.size, given.batch, given.steps), []
    for turn in range(given.rounds):
        order = (1, given.processes) if turn % 2 == 0 else (given.processes, 1)
        rounds.append({count: speed(count, *work) for count in order})
    ratios = [each[given.processes] / each[1] for each in rounds]
    what = f"{given.recipe}, emoji at {given.size} px, batch {given.batch}"
    result = {
        "workload": f"{what}, {given.processes} processes of 1 thread",
        "one": round(statistics.median(each[1] for each in rounds), 1),
        "several": round(statistics.median(each[given.processes] for each in rounds), 1),
        "ratio": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
        "rounds": given.rounds,
    }
    print(f"{result['workload']}: {result['ratio']} x the images/s of one ({result['one']} -> {result['several']})")
    save([result], Path(given.out))


if __name__ == "__main__":
    main()
