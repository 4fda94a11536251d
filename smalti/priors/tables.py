"""Priors whose logits depend on the position alone: what every other one has to beat."""

import math

import torch
from torch import Tensor

from smalti.priors.base import CausalPrior
from smalti.priors.layers import Features, by_position
from smalti.ranges import CodebookSize, NotNegative, Size
from smalti.shapes import check_shape


class Uniform(CausalPrior):
    """All K codes equally likely at each of h w positions: h w ln K nats, the fixed-length code."""

    table: Tensor  # (h*w, K)

    def __init__(self, *, codebook_size: CodebookSize, grid: tuple[Size, Size]):
        super().__init__(codebook_size, grid)
        self.register_buffer("table", torch.zeros(self.num_codes, codebook_size), persistent=False)

    def _network(self, codes: Features, condition: Tensor | None) -> Features:
        return by_position(codes, self.table)


class Histogram(CausalPrior):
    """How often each code occurs at each position, smoothed: the best prior that knows no neighbours.

    Args:
        codebook_size: K.
        grid: (h, w).
        smoothing: weight of the whole set's histogram at every position, in observations; each code gets 1 / K of an
            observation on top, so that none is impossible.
    """

    log_share: Tensor  # (h*w, K) nats

    def __init__(self, *, codebook_size: CodebookSize, grid: tuple[Size, Size], smoothing: NotNegative = 16.0):
        super().__init__(codebook_size, grid)
        self.smoothing = smoothing
        self.register_buffer("log_share", torch.full((self.num_codes, codebook_size), -math.log(codebook_size)))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Count codes (N, h, w)."""
        check_shape(codes, "N h w", "codes", h=self.grid[0], w=self.grid[1])
        flat = codes.flatten(1).T.cpu()  # (h*w, N)
        counts = torch.zeros(len(flat), self.codebook_size).scatter_add_(1, flat, torch.ones(flat.shape))
        overall = counts.sum(0) + 1 / self.codebook_size
        smoothed = counts + self.smoothing * overall / overall.sum()
        self.log_share.copy_((smoothed / smoothed.sum(1, keepdim=True)).log())

    def _network(self, codes: Features, condition: Tensor | None) -> Features:
        return by_position(codes, self.log_share)
