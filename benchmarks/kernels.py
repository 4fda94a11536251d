"""What each native kernel buys: every variant that this machine has, beside the plain PyTorch form of the operation.

    python benchmarks/kernels.py --threads 1

The plain form is what runs without a compiler. Before timing, both results are compared. Prints the rows of the table
in docs/kernels.md.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import compare, save
from torch import Tensor

from smalti.ops.gumbel import gumbel_latents
from smalti.ops.native import VARIANTS, load
from smalti.ops.nearest import nearest_code

Work = Callable[[], list[Tensor]]
PLAIN = "off"


def nearest(count: int, dim: int, size: int) -> tuple[str, int, Work]:
    features, codebook = torch.randn(count, dim), torch.randn(size, dim)
    name = f"nearest code, N {count:,}, D {dim}, K {size:,}"
    return name, count, lambda: [nearest_code(features, codebook)]


def gumbel(rows: int, dim: int, size: int, hard: bool) -> tuple[str, int, Work]:
    logits, codebook, up = torch.randn(rows, size), torch.randn(size, dim), torch.randn(rows, dim)

    def work() -> list[Tensor]:
        leaf, table = logits.detach().requires_grad_(), codebook.detach().requires_grad_()
        latents, kl, codes = gumbel_latents(leaf, table, 0.7, hard=hard, seed=1)
        return [codes, kl, *torch.autograd.grad([latents, kl], [leaf, table], [up, torch.ones_like(kl)])]

    kind = "straight-through" if hard else "soft"
    name = f"Gumbel-Softmax, {kind}, forward and backward, N {rows:,}, D {dim}, K {size:,}"
    return name, rows, work


def with_kernels(variant: str, work: Work) -> list[Tensor]:
    """The results of work that takes one variant of the kernels, or none."""
    os.environ["SMALTI_KERNELS"] = variant
    return work()


def check(variant: str, work: Work) -> None:
    """Codes as float32 gives them, up to rounding; the KL within 1e-4. Gradients depend on the noise: see the tests."""
    ours, plain = with_kernels(variant, work), with_kernels(PLAIN, work)
    assert (ours[0] != plain[0]).float().mean() < 1e-3, variant
    if len(ours) > 1:
        torch.testing.assert_close(ours[1], plain[1], rtol=1e-4, atol=1e-4)


def measure(name: str, count: int, work: Work, rounds: int) -> list[dict]:
    """Each variant against the plain form: rotated, the median of the ratios."""

    def side(variant: str) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            with_kernels(variant, work)
            return count / (time.perf_counter() - start)

        return run

    results = []
    for variant in VARIANTS:
        if load(variant) is not None:
            check(variant, work)
            sides = {variant: side(variant), "plain PyTorch": side(PLAIN)}
            results.append(compare(name, sides, variant, rounds, "vectors/s"))
    return results


def row(results: list[dict]) -> str:
    """One row of the table: the ratio of each variant, best first."""
    ratios = [next(iter(result["ratios"].values())) for result in results]
    cells = [f"{ratio['median']} ({ratio['range'][0]} to {ratio['range'][1]})" for ratio in ratios]
    return f"| {results[0]['workload']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="benchmarks/results/kernels.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    workloads = [nearest(16384, 64, 8192), nearest(16384, 8, 8192)]
    workloads += [gumbel(2048, 128, 2048, hard) for hard in (False, True)]
    results = [measure(*workload, arguments.rounds) for workload in workloads]
    save(list(itertools.chain(*results)), Path(arguments.out))
    found = [variant for variant in VARIANTS if load(variant) is not None]
    print(f"| operation | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for result in results:
        print(row(result))


if __name__ == "__main__":
    main()
