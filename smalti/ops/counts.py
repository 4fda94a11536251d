"""How often each code occurs, without a round trip to the host."""

import torch
from torch import Tensor


def code_counts(codes: Tensor, size: int) -> Tensor:
    """Counts (size,) int64 of codes (n,) in [0, size), on their device.

    torch.bincount asks a GPU for the largest code before it can return; a scatter does not.
    """
    if codes.device.type == "cpu":
        return torch.bincount(codes, minlength=size)
    return torch.zeros(size, dtype=torch.int64, device=codes.device).scatter_add_(0, codes, torch.ones_like(codes))
