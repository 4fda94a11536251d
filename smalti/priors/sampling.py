"""Sampling rules: pure functions on logits (B, K) in nats, and the one draw that every prior uses."""

import math

import torch
from torch import Tensor

from smalti.errors import SmaltiError


def check_rules(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise unless the rules make sense.

    Raises:
        SmaltiError: a negative temperature, top_k below 1, or top_p outside (0, 1].
    """
    if not temperature >= 0:
        raise SmaltiError(f"sampling temperature must not be negative (0 is greedy), not {temperature}")
    if top_k is not None and top_k < 1:
        raise SmaltiError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise SmaltiError(f"top_p must lie in (0, 1], not {top_p}")


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature; 0 keeps the largest logit only (greedy)."""
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


def apply_rules(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """Temperature, then top-k, then top-p."""
    logits = with_temperature(logits, temperature)
    logits = logits if top_k is None else keep_top_k(logits, top_k)
    return logits if top_p is None or top_p == 1 else keep_top_p(logits, top_p)


def draw(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one code for each row of logits (B, K): arg max of logits plus Gumbel noise, (B,) int64.

    The noise does not depend on the logits, so two ways to compute the same logits draw the same codes unless rounding
    decides between two codes within about 1e-6 of each other.
    """
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=torch.float64)
    noise = -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float64).tiny)))
    return (logits.double() + noise).argmax(-1)
