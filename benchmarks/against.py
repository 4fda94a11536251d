"""This tree against another commit of the project: sampling, and decoding files with a prior, both in one run.

    .venv/bin/python benchmarks/against.py 33c6574

The other commit is checked out in a folder of its own and its kernels are compiled. Each side is a process that holds
the same random network and does the same work when it is told to, in rotated order; before that each must decode the
file that the other wrote.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import compare, save

ROOT = Path(__file__).parent.parent
THIS = "smalti"
CONVOLUTIONAL = {"pixelcnn": {"channels": 128, "layers": 10}, "pixelsnail": {"channels": 64, "blocks": 8}}
TRANSFORMER = {"width": 512, "layers": 8, "heads": 8}
SMALL = {"pixelcnn": {}, "pixelsnail": {}, "transformer": {"width": 192, "layers": 4, "heads": 4}}


def worker(kind: str, options: dict[str, Any], side: int, count: int, work: str, file: str) -> None:
    """One side: waits for a line, does the work, prints its seconds; its checkout is the working directory."""
    import numpy as np
    import torch

    from smalti.priors.code_model import CodeModel
    from smalti.priors.config import PriorConfig

    try:
        from smalti.codec.prior_coder import PriorCoder
    except ImportError:
        from smalti.codec.network import PriorCoder  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    size = 1024 if options == TRANSFORMER else 512
    shape = {"codebook_size": size, "grid": (side, side), "tokenizer": "none", "tokenizer_hash": "none"}
    model = CodeModel(PriorConfig(prior={"kind": kind, **options}, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5 * max(1, parameter[0].numel()) ** -0.5)
    run: Callable[[], Any] = lambda: model.prior.sample(count)  # noqa: E731
    if work == "decode":
        coder, shapes = PriorCoder(model), [(1, side, side)] * count
        grids = list(np.random.default_rng(0).integers(0, size, (count, 1, side, side)))
        Path(file).write_bytes(coder.encode(grids))
        print("written", flush=True)
        stream = Path(input()).read_bytes()  # the other side's
        run = lambda: coder.decode(stream, shapes)  # noqa: E731
        assert all((found == grid).all() for found, grid in zip(run(), grids, strict=True)), "other codes"
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def measure(places: dict[str, Path], kind: str, options: dict, side: int, count: int, work: str, rounds: int) -> dict:
    """Codes per second of both sides."""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / str(index)) for index, name in enumerate(places)}
        processes = {
            name: subprocess.Popen(
                [sys.executable, __file__, "--worker", json.dumps([kind, options, side, count, work, files[name]])],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place,
                env={**os.environ, "PYTHONPATH": f"{place}:{ROOT / 'benchmarks'}", "GOMP_SPINCOUNT": "1000"},
            )
            for name, place in places.items()
        }  # fmt: skip

        def ask(name: str, line: str = "") -> str:
            process = processes[name]
            assert process.stdin and process.stdout
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip() if not line else ""

        def rate(name: str) -> float:
            return count * side * side / float(ask(name))

        if work == "decode":
            for process in processes.values():
                assert process.stdout and process.stdout.readline().strip() == "written"
            for name, other in zip(places, reversed(places), strict=True):
                ask(name, files[other])
        result = compare(
            f"{'sampling' if work == 'sample' else 'decoding'} {count} x {side}x{side} codes, {kind} {options}",
            {name: lambda name=name: rate(name) for name in places}, THIS, rounds,
        )  # fmt: skip
        for process in processes.values():
            process.communicate()
        return {**result, "neighbour_load_cores": "an unknown number of"}  # the sides are not told apart from them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default="33c6574")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["transformer", "convolutional", "decode"], nargs="*", default=[])
    parser.add_argument("--out", default="benchmarks/results/against.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(*json.loads(arguments.worker))
    works = {
        "transformer": [("transformer", TRANSFORMER, 16, count, "sample") for count in (16, 1)],
        "convolutional": [
            (kind, options, side, count, "sample")
            for kind, options in CONVOLUTIONAL.items()
            for side, count in ((32, 1), (32, 16), (8, 16))
        ],
        "decode": [(kind, options, 8, count, "decode") for kind, options in SMALL.items() for count in (1, 16, 128)],
    }
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", other, arguments.commit], cwd=ROOT, check=True)
        try:
            build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
            subprocess.run(build, cwd=other, check=True, stderr=subprocess.DEVNULL)
            places = {THIS: ROOT, arguments.commit: other}
            chosen = [work for name in arguments.only or works for work in works[name]]
            results = [measure(places, *work, rounds=arguments.rounds) for work in chosen]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
