"""Code shards under kills: a job that is killed at random and called again ends with the same bytes, on any engine.

    python -m tests.fuzz.tokenize_kills RUN DATA --kills 10 --engine local --workers 2

RUN and DATA are as for `smalti tokenize`. First the job is done undisturbed, to compare with; then again, killed with
SIGKILL at a random moment after a random number of shards, with all of its processes every other time.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.dataset as dataset

ROOT = Path(__file__).parents[2]


def start(run: str, data: str, out: Path, *more: object) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "smalti", "tokenize", run, "--data", data, "--out", str(out), *map(str, more)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            start_new_session=True)  # fmt: skip


def finished(job: subprocess.Popen) -> None:
    _, errors = job.communicate()
    if job.returncode:
        raise SystemExit(errors.decode())


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows_per_shard", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    more = ("--rows_per_shard", given.rows_per_shard, "--workers", given.workers, "--engine")
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        finished(start(given.run, given.data, whole, *more, "local"))
        total = len([*(whole / "codes").iterdir()])
        for number, target in enumerate(sorted(rng.sample(range(total), min(given.kills, total)))):
            job = start(given.run, given.data, killed, *more, given.engine)
            while job.poll() is None and len([*(killed / "codes").glob("*.parquet")]) < target:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.5))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL) if number % 2 else job.kill()
            job.wait()
            done = len([*(killed / "codes").glob("*.parquet")])
            print(f"kill {number + 1}: {done} of {total} shards", flush=True)
        finished(start(given.run, given.data, killed, *more, given.engine))
        assert contents(killed) == contents(whole), "other bytes"
        keys = Counter(dataset.dataset(str(killed / "codes")).to_table(columns=["key"])["key"].to_pylist())
        assert set(keys.values()) == {1}, "a key comes twice"
        print(f"{len(keys):,} keys, each once; {len(contents(killed))} files, the same bytes")


if __name__ == "__main__":
    main()
