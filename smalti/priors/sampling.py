"""Sampling rules: pure functions on logits (B, K) in nats, and the one way in which every prior samples a code."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.ops.gumbel_noise import standard_gumbel

Progress = Callable[[int, int], None]  # told (done, of) after each step of a long work, which it ends by raising


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature; 0 keeps the largest logit only (greedy)."""
    if temperature == 1:
        return logits
    return keep_top_k(logits, 1) if temperature == 0 else logits / temperature


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """All but the `top_k` largest logits become -inf; of equal ones the lower codes stay."""
    if top_k >= logits.shape[-1]:
        return logits
    kept = logits.argsort(dim=-1, descending=True, stable=True)[..., :top_k]
    return torch.full_like(logits, -math.inf).scatter(-1, kept, logits.gather(-1, kept))


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most likely codes whose probabilities sum to at least `top_p`; the others become -inf.

    Holtzman et al., arXiv:1904.09751. The most likely code always stays.
    """
    order = logits.argsort(dim=-1, descending=True, stable=True)
    probabilities = logits.gather(-1, order).softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits.masked_fill(dropped, -math.inf)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How logits become a distribution to sample from: temperature, then top-k, then top-p.

    Attributes:
        temperature: 0 is greedy.
        top_k: sample from the k most likely codes only; None is all.
        top_p: sample from the smallest set of codes with this total probability; None is all.

    Raises:
        SmaltiError: a negative temperature, top_k below 1, or top_p outside (0, 1].
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise SmaltiError(f"sampling temperature must not be negative (0 is greedy), not {self.temperature}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p not in (None, 1)):
            raise SmaltiError("top_k and top_p have no effect at temperature 0, which is greedy; leave them out")
        if self.top_k is not None and self.top_k < 1:
            raise SmaltiError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SmaltiError(f"top_p must lie in (0, 1], not {self.top_p}")

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits (B, K) as changed by the rules; what may not be sampled is -inf."""
        logits = with_temperature(logits, self.temperature)
        logits = logits if self.top_k is None else keep_top_k(logits, self.top_k)
        return logits if self.top_p is None or self.top_p == 1 else keep_top_p(logits, self.top_p)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance on log-probabilities: unconditional + guidance * (conditional - unconditional).

    Ho and Salimans, arXiv:2207.12598 (whose w is guidance - 1). 1 is the conditional distribution, 0 the unconditional.
    """
    conditional, unconditional = conditional.log_softmax(-1), unconditional.log_softmax(-1)
    return unconditional + guidance * (conditional - unconditional)


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """A checked call of `Prior.sample`: its arguments, with `mask` (T,) on the CPU and `known` (B, T) always there."""

    num: int
    condition: Tensor | None
    rules: Rules
    guidance: float
    generator: torch.Generator | None
    mask: Tensor
    known: Tensor
    steps: int | None
    progress: Progress | None

    @property
    def copies(self) -> int:
        """2 with guidance: each image is asked for with its condition, and then without."""
        return 1 if self.guidance == 1 or self.condition is None else 2

    @property
    def conditions(self) -> Tensor | None:
        """The conditions (copies * B, ...) to ask with."""
        if self.copies == 1 or self.condition is None:
            return self.condition
        return torch.stack([self.condition, torch.full_like(self.condition, -1)], dim=1).flatten(0, 1)

    @property
    def end(self) -> int:
        """The position behind the last one that is not known: what follows decides nothing in raster order."""
        unknown = (~self.mask).nonzero()
        return int(unknown[-1]) + 1 if len(unknown) else 0

    def told(self, num_steps: int) -> Iterator[int]:
        """The numbers of the steps; after each, whoever wants to know is told."""
        for step in range(num_steps):
            yield step
            if self.progress is not None:
                self.progress(step + 1, num_steps)

    def asked(self, values: Tensor) -> Tensor:
        """Something of each image (B, ...), for all copies."""
        return values.repeat_interleave(self.copies, 0)

    def answer(self, logits: Tensor) -> Tensor:
        """The logits (B, ...) of the logits (copies * B, ...) that were asked for."""
        if self.copies == 1:
            return logits
        conditional, unconditional = logits.unflatten(0, (-1, 2)).unbind(1)
        return guided(conditional, unconditional, self.guidance)


def sample_codes(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One code for each row of logits (B, K): arg max of logits plus Gumbel noise, (B,) int64.

    The noise does not depend on the logits, so two ways to compute the same logits sample the same codes unless
    rounding decides between two codes within about 1e-6 of each other.
    """
    return (logits.double() + gumbel_noise(logits, generator)).argmax(-1)


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise in float64, of the shape and on the device of a tensor."""
    return standard_gumbel(like, generator, torch.float64)
