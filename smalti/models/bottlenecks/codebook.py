"""The K x D table of code vectors with its bookkeeping: first values from data, averages, restart of dead codes."""

from typing import Literal

import torch
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.ops.counts import code_counts
from smalti.ops.nearest import nearest_code

KMEANS_ITERATIONS = 10
JITTER = 0.1  # of vectors picked twice, in standard deviations of the vectors: equal code vectors could never part
EPSILON = 1e-8
Learning = Literal["ema", "gradient", "simvq"]


class Codebook(nn.Module):
    """Code vectors that start from data, and that come back to life when nothing is assigned to them.

    All statistics are fractions of the vectors seen, so they mean the same at every batch size: a code that gets its
    uniform share has a `share` of 1/K. `observe` collects during the forward passes of a step, `update` (once after the
    step) averages and restarts: the average over steps is that of van den Oord et al. (arXiv:1711.00937, appendix A.1),
    the restart that of Dhariwal et al. (Jukebox, arXiv:2005.00341, section 3.1).

    Args:
        size: K, at least 2.
        dim: D.
        learning: "ema" (a buffer: the moving average of the vectors assigned to a code), "gradient" (a parameter), or
            "simvq": fixed vectors times a learned D x D matrix, so that every step moves all codes (arXiv:2411.02038).
        decay: of the moving averages, per optimiser step.
        restart_below: a code whose share falls below this fraction of 1/K becomes a random recent vector; 0 is never.
        start: "kmeans" of the first batch, or "random": uniform with variance 1/D, as in the authors' code (Sonnet).
    """

    table: Tensor  # (K, D), what is stored: the vectors, or what the matrix makes them of
    share: Tensor  # (K,) moving average of the fraction of vectors assigned to each code
    sums: Tensor  # (K, D) moving average of (sum of assigned vectors) / (number of vectors)
    ready: Tensor  # (), whether the first values have been taken from data

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        learning: Learning,
        decay: float,
        restart_below: float,
        start: Literal["kmeans", "random"] = "kmeans",
    ):
        super().__init__()
        if size < 2:
            raise SmaltiError(f"codebook_size must be at least 2, not {size}")
        if learning not in ("ema", "gradient", "simvq"):
            raise SmaltiError(f"learning must be 'ema', 'gradient' or 'simvq', not {learning!r}")
        if not 0 <= decay < 1 or not 0 <= restart_below < 1:
            raise SmaltiError(f"decay and restart_below must lie in [0, 1), not {decay} and {restart_below}")
        self.learning, self.decay, self.restart_below = learning, decay, restart_below
        if start not in ("kmeans", "random"):
            raise SmaltiError(f"start must be 'kmeans' or 'random', not {start!r}")
        vectors = (2 * torch.rand(size, dim) - 1) * (3 / dim) ** 0.5
        if learning == "gradient":
            self.table = nn.Parameter(vectors)
        else:
            self.register_buffer("table", vectors)
        self.matrix = nn.Parameter(torch.eye(dim)) if learning == "simvq" else None
        self.register_buffer("share", torch.full((size,), 1 / size))
        self.register_buffer("sums", vectors / size)
        self.register_buffer("ready", torch.tensor(start == "random"))
        self._started = start == "random"
        self._forget()

    @property
    def vectors(self) -> Tensor:
        """The code vectors (K, D), with their gradient."""
        return self.table if self.matrix is None else self.table @ self.matrix

    def _set(self, vectors: Tensor) -> None:
        self.table.copy_(vectors if self.matrix is None else torch.linalg.solve(self.matrix, vectors, left=False))

    @property
    def started(self) -> bool:
        """Whether the first values have been taken from data; a device is asked until they have, and never again."""
        self._started = self._started or bool(self.ready)
        return self._started

    def _forget(self) -> None:
        self._counted: list[Tensor] = []
        self._summed: list[Tensor] = []
        self._seen = 0
        self._recent: Tensor | None = None

    @torch.no_grad()
    def initialize(self, vectors: Tensor) -> None:
        """Run k-means on (N, D) vectors for the first values of the codes, unless that has been done."""
        if self.started:
            return
        size = len(self.table)
        means = _pick(vectors, size)
        for _ in range(KMEANS_ITERATIONS):
            codes = nearest_code(vectors, means)
            counts = code_counts(codes, size).to(vectors)
            sums = torch.zeros_like(means).index_add_(0, codes, vectors)
            means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], _pick(vectors, size))
        self._set(means)
        self.sums.copy_(means / size)
        self.ready.fill_(True)

    @torch.no_grad()
    def observe(self, vectors: Tensor, codes: Tensor) -> None:
        """Collect the assignment of (N, D) vectors to (N,) codes for the next update."""
        self._counted.append(code_counts(codes, len(self.table)))
        if self.learning == "ema":
            self._summed.append(torch.zeros_like(self.sums).index_add_(0, codes, vectors))
        self._seen += len(codes)
        self._recent = vectors.detach()

    @torch.no_grad()
    def update(self) -> dict[str, Tensor]:
        """Average what was observed since the last call, then restart dead codes; reports how many, a scalar tensor."""
        if not self._seen or self._recent is None:
            return {}
        weight = 1 - self.decay
        self.share.lerp_(torch.stack(self._counted).sum(0).to(self.share) / self._seen, weight)
        if self.learning == "ema":
            self.sums.lerp_(torch.stack(self._summed).sum(0) / self._seen, weight)
            self._set(self.sums / self.share.clamp(min=EPSILON)[:, None])
        restarted = self._restart(self._recent) if self.restart_below else self.share.new_zeros(())
        self._forget()
        return {"restarted": restarted}

    def _restart(self, recent: Tensor) -> Tensor:
        size = len(self.table)
        dead = self.share < self.restart_below / size
        fresh = _pick(recent, size)
        self._set(torch.where(dead[:, None], fresh, self.vectors))
        self.sums.copy_(torch.where(dead[:, None], fresh / size, self.sums))
        self.share.masked_fill_(dead, 1 / size)
        return dead.sum().to(self.share)


def _pick(vectors: Tensor, num: int) -> Tensor:
    """Pick `num` of (N, D) vectors at random: without repetition where N allows it, else with a little noise."""
    count = len(vectors)
    chosen = vectors[torch.randperm(count, device=vectors.device).repeat(-(-num // count))[:num]]
    if num > count:
        chosen[count:] += JITTER * vectors.std(0, correction=0) * torch.randn_like(chosen[count:])
    return chosen
