"""Numbers that change during training: pure functions of the step, as frozen values that fit into a config."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from smalti.errors import SmaltiError
from smalti.ranges import Range


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A value that goes from `start` to `end` over a portion of the run and then stays.

    Attributes:
        kind: "constant" (always `end`), "linear", "cosine" (half a cosine) or "exponential" (a straight line in the
            logarithm; both ends positive).
        start: the value at the first step.
        end: the value when the portion is over.
        portion: the part of the run's steps over which it changes, in (0, 1].
        warmup: steps over which the whole is multiplied by a line from 0 to 1.

    Example:
        >>> temperature = cosine(1.0, 1 / 16, portion=0.5)
        >>> temperature(0, 200), temperature(50, 200), temperature(150, 200)
        (1.0, 0.53125, 0.0625)
    """

    kind: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    start: float = 0.0
    end: float = 0.0
    portion: float = 1.0
    warmup: Annotated[int, Range(0, 1 << 40)] = 0

    def __post_init__(self) -> None:
        if not 0 < self.portion <= 1:
            raise SmaltiError(f"a schedule takes a portion of the run in (0, 1], not {self.portion}")
        if self.kind == "exponential" and not (self.start > 0 and self.end > 0):
            raise SmaltiError(f"an exponential schedule stays positive; it cannot go from {self.start} to {self.end}")

    def __call__(self, step: int, steps: int) -> float:
        """The value at optimiser step `step` (0 is the first) of a run of `steps`."""
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.kind == "constant" or step >= self.portion * steps:
            return ramp * self.end
        way = step / (self.portion * steps)
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


def linear(start: float, end: float, portion: float = 1.0) -> Schedule:
    """A straight line from `start` to `end`."""
    return Schedule(kind="linear", start=start, end=end, portion=portion)


def cosine(start: float, end: float, portion: float = 1.0, *, warmup: int = 0) -> Schedule:
    """Half a cosine from `start` to `end`, as in DALL-E's schedules (arXiv:2102.12092, appendix A.2)."""
    return Schedule(kind="cosine", start=start, end=end, portion=portion, warmup=warmup)
