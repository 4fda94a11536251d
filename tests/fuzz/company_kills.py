"""Several processes of which one is killed, again and again: torchrun starts them anew, and the bits are the same.

A run is trained undisturbed, then again under `torchrun --max-restarts`, while a worker chosen at random gets SIGKILL
at a random moment after each checkpoint that it has got to. In the end both folders hold the same weights.

    python -m tests.fuzz.company_kills                 20 kills of 2 processes
    python -m tests.fuzz.company_kills --kills 5 --processes 3 --seed 1
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from smalti.files import read_tensors
from smalti.training.state import checkpoints

from .kills import images

HUNG_SECONDS = 600


def command(data: Path, out: Path, steps: int) -> list[str]:
    """A training of a few milliseconds a step, with a checkpoint every fifth."""
    settings = {"steps": steps, "batch_size": 12, "log_every": 5, "checkpoint_every": 5, "validate_every": 0,
                "sample_every": 0, "image_size": 16, "width": 4, "codebook_size": 8, "precision": "fp32"}  # fmt: skip
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["-m", "smalti", "train", "vqvae", "--data", str(data), "--out", str(out), *flags]


def torchrun(processes: int, restarts: int, words: list[str]) -> subprocess.Popen:
    """Start it."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        [*launch, f"--max-restarts={restarts}", "--monitor-interval=0.2", *words], env=environment, **quiet
    )


def workers(agent: int) -> list[int]:
    """The processes that torchrun has started, by their ids."""
    found = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(one) for one in found]


def newest(run: Path) -> int:
    """The step of the newest checkpoint; 0 is none."""
    return max(checkpoints(run / "checkpoints"), default=0) if (run / "checkpoints").is_dir() else 0


def disturbed(agent: subprocess.Popen, run: Path, kills: int, steps: int, rng: random.Random) -> int:
    """Kill workers until there were enough; returns how many were killed."""
    done, seen, deadline = 0, 0, time.time() + HUNG_SECONDS
    while agent.poll() is None and time.time() < deadline:
        step = newest(run)
        if done < kills and step > seen and step < steps:
            time.sleep(rng.uniform(0, 0.05))
            if alive := workers(agent.pid):
                os.kill(rng.choice(alive), signal.SIGKILL)
                done, seen, deadline = done + 1, step, time.time() + HUNG_SECONDS
                print(f"kill {done} of {kills} after step {step}", flush=True)
        time.sleep(0.02)
    agent.wait(timeout=HUNG_SECONDS)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    steps = 20 * (given.kills + 2)
    with tempfile.TemporaryDirectory() as folder:
        data, whole, killed = images(Path(folder) / "data"), Path(folder) / "whole", Path(folder) / "killed"
        assert torchrun(given.processes, 0, command(data, whole, steps)).wait() == 0
        agent = torchrun(given.processes, given.kills, command(data, killed, steps))
        done = disturbed(agent, killed, given.kills, steps, random.Random(given.seed))
        one, other = (read_tensors(run / "model.safetensors")[0] for run in (whole, killed))
        equal = one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
        print(f"{done} kills of {given.processes} processes, exit status {agent.returncode}; weights equal: {equal}")
        sys.exit(0 if equal and done == given.kills and agent.returncode == 0 else 1)


if __name__ == "__main__":
    main()
