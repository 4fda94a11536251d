"""Numbers that change with the step: pure functions step -> float, as frozen values that fit into a config."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A value that goes from `start` to `end` over `steps` steps and then stays.

    Attributes:
        kind: "constant" (always `end`), "linear", "cosine" (half a cosine) or "exponential" (a straight line in the
            logarithm; both ends positive).
        start: the value at step `delay`.
        end: the value from step `delay + steps` on.
        steps: how many steps the way takes.
        delay: steps to wait at `start` before moving.
        warmup: steps over which the whole is multiplied by a line from 0 to 1.

    Example:
        >>> temperature = cosine(1.0, 1 / 16, steps=100)
        >>> temperature(0), temperature(50), temperature(1000)
        (1.0, 0.53125, 0.0625)
    """

    kind: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    start: float = 0.0
    end: float = 0.0
    steps: int = 0
    delay: int = 0
    warmup: int = 0

    def __call__(self, step: int) -> float:
        """The value at optimiser step `step` (0 is the first)."""
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.kind == "constant" or step >= self.delay + self.steps:
            return ramp * self.end
        way = max(0, step - self.delay) / self.steps
        match self.kind:
            case "linear":
                value = self.start + (self.end - self.start) * way
            case "cosine":
                value = self.end + (self.start - self.end) * (1 + math.cos(math.pi * way)) / 2
            case "exponential":
                value = self.start * (self.end / self.start) ** way
        return ramp * value


def constant(value: float) -> Schedule:
    """The same value at every step."""
    return Schedule(end=value)


def linear(start: float, end: float, steps: int, *, delay: int = 0) -> Schedule:
    """A straight line from `start` to `end`."""
    return Schedule(kind="linear", start=start, end=end, steps=steps, delay=delay)


def cosine(start: float, end: float, steps: int, *, delay: int = 0, warmup: int = 0) -> Schedule:
    """Half a cosine from `start` to `end`, as in DALL-E's schedules (arXiv:2102.12092, appendix A.2)."""
    return Schedule(kind="cosine", start=start, end=end, steps=steps, delay=delay, warmup=warmup)
