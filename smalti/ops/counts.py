"""Codes as numbers: the lowest and the highest, how often each occurs, and what that says of a codebook."""

import torch
from torch import Tensor


def code_counts(codes: Tensor, size: int) -> Tensor:
    """Counts (size,) int64 of codes (n,) in [0, size), on their device.

    torch.bincount asks a GPU for the largest code before it can return; a scatter does not.
    """
    if codes.device.type == "cpu":
        return torch.bincount(codes, minlength=size)
    return torch.zeros(size, dtype=torch.int64, device=codes.device).scatter_add_(0, codes, torch.ones_like(codes))


def extremes(integers: Tensor) -> tuple[int, int]:
    """The lowest and the highest; (0, 0) where there are none, and while a graph is exported, which holds no values."""
    if torch.compiler.is_exporting() or not integers.numel():
        return 0, 0
    return int(integers.min()), int(integers.max())


def usage(counts: Tensor) -> float:
    """Fraction of the codes that were used at least once, of counts (K,) or, for q codebooks, (q, K)."""
    return (counts > 0).float().mean().item()


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of the histogram (K,): K when all codes are used alike; for (q, K) of the mean entropy."""
    share = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(-1).mean().exp().item()
