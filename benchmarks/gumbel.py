"""The Gumbel-Softmax bottleneck, forward and backward, beside `F.gumbel_softmax` and an einsum.

    python benchmarks/gumbel.py

The peer is what DALLE-pytorch does, with the layout (B, K, h, w) in which it is faster; ours takes channels-last logits
and computes the KL too. Before timing, both are compared on the same noise.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import compare, save
from lookup import extra_bytes
from torch import Tensor

from smalti.ops.gumbel import gumbel_latents
from smalti.ops.gumbel_noise import seeded_gumbel

TEMPERATURE = 0.7
SIZES = ((8, 512, 16, 128), (8, 2048, 16, 128), (8, 8192, 16, 128))  # B, K, side, D


def check(codebook: Tensor, hard: bool) -> None:
    """Ours against autograd on the same noise, on a few rows."""
    logits, up = torch.randn(64, len(codebook)), torch.randn(64, codebook.shape[1])
    gradients = []
    for fused in (True, False):
        leaf = logits.clone().requires_grad_()
        if fused:
            latents = gumbel_latents(leaf, codebook, TEMPERATURE, hard=hard, seed=3)[0]
        else:
            noisy = leaf + seeded_gumbel(logits, 3)
            weights = (noisy / TEMPERATURE).softmax(1)
            if hard:
                weights = F.one_hot(noisy.argmax(1), len(codebook)) + weights - weights.detach()
            latents = weights @ codebook
        gradients.append(torch.autograd.grad((latents * up).sum(), leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def one(batch: int, size: int, side: int, dim: int, hard: bool, rounds: int) -> dict:
    torch.manual_seed(0)
    rows, codebook = batch * side * side, torch.randn(size, dim)
    logits, up = torch.randn(batch, size, side, side), torch.randn(batch, dim, side, side)
    flat, flat_up = (part.permute(0, 2, 3, 1).reshape(rows, -1).contiguous() for part in (logits, up))
    check(codebook, hard)

    def peer() -> None:
        leaf, table = logits.detach().requires_grad_(), codebook.detach().requires_grad_()
        weights = F.gumbel_softmax(leaf, tau=TEMPERATURE, dim=1, hard=hard)
        torch.einsum("bkhw,kd->bdhw", weights, table).backward(up)

    def ours() -> None:
        leaf, table = flat.detach().requires_grad_(), codebook.detach().requires_grad_()
        latents, kl, _ = gumbel_latents(leaf, table, TEMPERATURE, hard=hard, seed=1)
        torch.autograd.backward([latents, kl], [flat_up, torch.ones_like(kl)])

    def timed(work: Callable[[], None]) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            work()
            return rows / (time.perf_counter() - start)

        return run

    memory = {"smalti": extra_bytes(ours), "F.gumbel_softmax + einsum": extra_bytes(peer)}
    name = f"{'straight-through' if hard else 'soft'}, {batch} x {size} x {side} x {side}, D {dim}"
    sides = {"smalti": timed(ours), "F.gumbel_softmax + einsum": timed(peer)}
    result = compare(name, sides, "smalti", rounds, "vectors/s")
    result["extra_memory_in_logits"] = {key: round(value / (4 * rows * size), 2) for key, value in memory.items()}
    print(f"  extra memory in sizes of the logits: {result['extra_memory_in_logits']}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="benchmarks/results/gumbel.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    save([one(*size, hard, arguments.rounds) for size in SIZES for hard in (False, True)], Path(arguments.out))


if __name__ == "__main__":
    main()
