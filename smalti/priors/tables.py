"""Priors whose logits depend on the position alone: what every other one has to beat."""

import math

import torch
from torch import Tensor

from smalti.priors.base import CausalPrior, Stepper
from smalti.shapes import check_shape


class Uniform(CausalPrior):
    """Every code equally likely everywhere: h w ln K nats, the fixed-length code.

    Args:
        codebook_size: K.
        grid: (h, w).
    """

    def __init__(self, *, codebook_size: int, grid: tuple[int, int]):
        super().__init__(codebook_size, grid)

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        return torch.zeros(*codes.shape, self.codebook_size, device=codes.device)

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _Table(torch.zeros(self.grid[0] * self.grid[1], self.codebook_size), batch)


class Histogram(CausalPrior):
    """How often each code occurs at each position, smoothed: the best prior that knows no neighbours.

    Args:
        codebook_size: K.
        grid: (h, w).
        smoothing: weight of the whole set's histogram at every position, in observations; each code besides gets one
            K-th of an observation, so that none is impossible.
    """

    log_share: Tensor  # (h*w, K) nats

    def __init__(self, *, codebook_size: int, grid: tuple[int, int], smoothing: float = 16.0):
        super().__init__(codebook_size, grid)
        self.smoothing = smoothing
        uniform = torch.full((grid[0] * grid[1], codebook_size), -math.log(codebook_size))
        self.register_buffer("log_share", uniform)

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Count codes (N, h, w)."""
        check_shape(codes, "N h w", "codes", h=self.grid[0], w=self.grid[1])
        flat = codes.flatten(1).T.cpu()  # (h*w, N)
        counts = torch.zeros(len(flat), self.codebook_size).scatter_add_(1, flat, torch.ones(flat.shape))
        overall = counts.sum(0) + 1 / self.codebook_size
        smoothed = counts + self.smoothing * overall / overall.sum()
        self.log_share.copy_((smoothed / smoothed.sum(1, keepdim=True)).log())

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        return self.log_share.view(1, *self.grid, -1).expand(len(codes), -1, -1, -1)

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _Table(self.log_share, batch)


class _Table:
    """A stepper of a prior whose logits depend on the position alone."""

    def __init__(self, logits: Tensor, batch: int):
        self.rows, self.batch = iter(logits), batch

    def step(self, previous: Tensor | None) -> Tensor:
        return next(self.rows).expand(self.batch, -1)
