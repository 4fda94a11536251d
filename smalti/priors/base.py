"""The interface of all priors: a member says its logits, and how to step; the rest is derived here."""

import math
from abc import ABC, abstractmethod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from smalti.errors import SmaltiError
from smalti.priors.sampling import apply_rules, check_rules, draw
from smalti.shapes import check_shape


class Stepper(Protocol):
    """Goes through the positions of a grid in raster order, with whatever cache makes a step cheap."""

    def step(self, previous: Tensor | None) -> Tensor:
        """The logits (B, K) of the next position.

        Args:
            previous: the codes (B,) int64 of the position before it; None at the first.
        """
        ...


class Prior(nn.Module, ABC):
    """p(codes | condition) for codes (B, h, w) in [0, K), causal in raster order: position t depends on those before t.

    Attributes:
        codebook_size: K.
        grid: (h, w).
        num_conditions: number of classes of the condition; 0 is an unconditional prior.
    """

    codebook_size: int
    grid: tuple[int, int]
    num_conditions: int = 0

    @abstractmethod
    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        """Unnormalised log p(code at t | codes before t), (B, h, w, K)."""

    @abstractmethod
    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        """A stepper for `batch` grids at once."""

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities of all positions at once (teacher forcing), (B, h, w, K) float32.

        Args:
            codes: (B, h, w) int64.
            condition: (B,) int64 class of each grid, for a conditional prior.

        Raises:
            SmaltiError: codes of another shape or range, or a condition where there should be none (or none where there
                should be one).
        """
        check_shape(codes, "B h w", "codes", h=self.grid[0], w=self.grid[1])
        if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < self.codebook_size):
            low, high = int(codes.min()), int(codes.max())
            raise SmaltiError(f"codes must lie in [0, {self.codebook_size}); these lie in [{low}, {high}]")
        return self._logits(codes, self._checked(condition, len(codes)))

    def nll(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """-log p(codes | condition), nats per image (B,)."""
        logits = self.logits(codes, condition).float()
        return F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none").view(len(codes), -1).sum(1)

    def stepper(self, batch: int, condition: Tensor | None = None) -> Stepper:
        """A stepper for `batch` grids; its logits equal those of `logits` within rounding."""
        return self._stepper(batch, self._checked(condition, batch))

    @torch.no_grad()
    def sample(
        self,
        num: int,
        condition: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw `num` grids of codes, (num, h, w) int64.

        Args:
            num: how many.
            condition: (num,) int64 classes, for a conditional prior.
            generator: of the random numbers; the same ones give the same codes.
            temperature: 0 is greedy.
            top_k: draw from so many most likely codes only.
            top_p: draw from the smallest set of codes with this probability only.
            known: (h, w) or (num, h, w) codes to keep where `mask` says so.
            mask: (h, w) bool, True where a code is known; the others are drawn, each given what stands before it in
                raster order.
            progress: show a bar.

        Raises:
            SmaltiError: rules that make no sense, or known codes or a mask of another shape.
        """
        check_rules(temperature, top_k, top_p)
        given = self._given(num, known, mask)
        height, width = self.grid
        device = next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))
        stepper = self.stepper(num, condition)
        drawn: list[Tensor] = []
        training = self.training
        self.eval()
        try:
            for place in tqdm(range(height * width), desc="drawing", unit="code", disable=not progress, leave=False):
                logits = apply_rules(stepper.step(drawn[-1] if drawn else None), temperature, top_k, top_p)
                code = draw(logits, generator)
                if given is not None and given[0].flatten()[place]:
                    code = given[1].flatten(1)[:, place].to(device)
                drawn.append(code)
        finally:
            self.train(training)
        return torch.stack(drawn, dim=1).view(num, height, width)

    def _checked(self, condition: Tensor | None, batch: int) -> Tensor | None:
        if (condition is None) != (self.num_conditions == 0):
            need = f"a condition of {self.num_conditions} classes" if self.num_conditions else "no condition"
            raise SmaltiError(f"this prior takes {need}")
        if condition is None:
            return None
        check_shape(condition, "B", "condition", B=batch)
        if condition.numel() and not (int(condition.min()) >= 0 and int(condition.max()) < self.num_conditions):
            low, high = int(condition.min()), int(condition.max())
            raise SmaltiError(f"conditions must lie in [0, {self.num_conditions}); these lie in [{low}, {high}]")
        return condition

    def _given(self, num: int, known: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        if (known is None) != (mask is None):
            raise SmaltiError("completion needs both known codes and a mask")
        if known is None or mask is None:
            return None
        height, width = self.grid
        check_shape(mask, "h w", "mask", h=height, w=width)
        known = known if known.ndim == 3 else known[None].expand(num, -1, -1)
        check_shape(known, "B h w", "known", B=num, h=height, w=width)
        return mask.bool(), known


class Uniform(Prior):
    """Every code equally likely everywhere: h w ln K nats, the fixed-length code.

    Args:
        codebook_size: K.
        grid: (h, w).
    """

    def __init__(self, *, codebook_size: int, grid: tuple[int, int]):
        super().__init__()
        self.codebook_size, self.grid = codebook_size, (grid[0], grid[1])

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        return torch.zeros(*codes.shape, self.codebook_size, device=codes.device)

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _Table(torch.zeros(self.grid[0] * self.grid[1], self.codebook_size), batch)


class Histogram(Prior):
    """How often each code occurs at each position, smoothed: the best prior that knows no neighbours.

    Args:
        codebook_size: K.
        grid: (h, w).
        smoothing: weight of the whole set's histogram at every position, in observations; each code besides gets one
            K-th of an observation, so that none is impossible.
    """

    log_share: Tensor  # (h*w, K) nats

    def __init__(self, *, codebook_size: int, grid: tuple[int, int], smoothing: float = 16.0):
        super().__init__()
        self.codebook_size, self.grid, self.smoothing = codebook_size, (grid[0], grid[1]), smoothing
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
