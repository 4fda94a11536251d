"""What a number in an annotation may be: `Annotated[int, Range(1, 8)]`, or one of the names here.

`smalti.configs` holds the values of a file against them; for everybody else they are `int` and `float`.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

BIGGEST = sys.float_info.max


@dataclass(frozen=True)
class Range:
    """Which numbers are allowed.

    Attributes:
        low: the smallest.
        high: the largest; infinity is allowed only where it stands here.
        above: `low` itself is not allowed.
        below: `high` itself is not allowed.
    """

    low: float = -BIGGEST
    high: float = BIGGEST
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        at_end = (self.above and value == self.low) or (self.below and value == self.high)
        return self.low <= value <= self.high and not at_end

    def __str__(self) -> str:
        if self.high >= BIGGEST:
            return "finite" if self.low <= -BIGGEST else f"{'above' if self.above else 'at least'} {self.low}"
        return f"in {'(' if self.above else '['}{self.low}, {self.high}{')' if self.below else ']'}"


Size = Annotated[int, Range(1, 1 << 20)]  # of an axis: channels, widths, dimensions, pixels
Count = Annotated[int, Range(1, 1 << 10)]  # of layers, heads, codebooks
CodebookSize = Annotated[int, Range(2, 1 << 32)]  # K
Conditioned = Annotated[int, Range(0, 1 << 20)]  # on so many: classes, tokens; 0 is none
Rank = Annotated[int, Range(0, 1 << 20)]  # of a factorised table; 0 is none
Kernel = Annotated[int, Range(1, 255)]  # side of a window
Share = Annotated[float, Range(0, 1, below=True)]  # a part of a whole, never all of it
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
