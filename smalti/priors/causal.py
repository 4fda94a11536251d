"""Causal convolutions over a grid in raster order, and how to step them one position at a time.

A window at row r, column c may hold the rows above r and, in row r, the columns left of c. While a grid is drawn, the
part from above is computed once a row for all its columns; the part from the left once a position, from the inputs that
are kept for it. That is the whole trick of fast exact sampling: no input is ever visited for nothing.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError


def check_kernel(kernel: int) -> None:
    """Raise unless a window of this size has a middle and something before it.

    Raises:
        SmaltiError: an even size, or 1.
    """
    if kernel % 2 == 0 or kernel < 3:
        raise SmaltiError(f"kernels must be odd and at least 3, not {kernel}")


class CausalConv2d(nn.Module):
    """A convolution that sees what comes before a position in raster order, and the position itself unless `strict`.

    The rows above within kernel // 2, and in its own row as many columns to the left: the masks A (strict) and B of
    PixelRNN (arXiv:1601.06759).

    Shapes:
        features  (B, in_channels, h, w)
        returns   (B, out_channels, h, w)

    Args:
        in_channels: of the features.
        out_channels: of the result.
        kernel: size of the whole window, odd; only its upper half is kept.
        strict: leave the position itself out.

    Raises:
        SmaltiError: an even kernel, or 1.
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, strict: bool = False):
        super().__init__()
        check_kernel(kernel)
        self.reach = kernel // 2
        self.left_taps = self.reach + (0 if strict else 1)
        self.conv = nn.Conv2d(in_channels, out_channels, (self.reach + 1, kernel))
        mask = torch.ones(self.reach + 1, kernel)
        mask[-1, self.left_taps :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """All positions at once."""
        padded = F.pad(features, (self.reach, self.reach, self.reach, 0))
        return F.conv2d(padded, self.conv.weight * self.mask, self.conv.bias)


class LeftTaps:
    """The part of a causal window that lies in the row being drawn: a sum over the positions just left of this one.

    Args:
        weight: (out, in, taps); the last tap is the position `column` + `taps` - 1 - `reach`.
        batch: B.
        width: of the grid.
        reach: how far the window goes to the left.
    """

    def __init__(self, weight: Tensor, batch: int, width: int, reach: int):
        self.taps = [tap.T.contiguous() for tap in weight.unbind(2)]  # (in, out) each
        self.reach = reach
        self.row = weight.new_zeros(reach + width, batch, weight.shape[1])

    def clear(self) -> None:
        """Begin a row."""
        self.row.zero_()

    def put(self, column: int, features: Tensor) -> None:
        """Keep the inputs (B, in) of a column."""
        self.row[column + self.reach] = features

    def at(self, column: int, start: Tensor) -> Tensor:
        """`start` (B, out) plus the taps at a column, (B, out)."""
        for offset, tap in enumerate(self.taps):
            start = torch.addmm(start, self.row[column + offset], tap)
        return start


class SteppedConv:
    """Steps a `CausalConv2d`: `begin_row`, then for each column `put` its inputs and ask `at` for its result.

    A strict convolution is asked before its own column is put.
    """

    def __init__(self, conv: CausalConv2d, batch: int, width: int):
        weight, bias = conv.conv.weight.detach(), conv.conv.bias
        assert bias is not None
        self.above = weight[:, :, :-1].contiguous()
        self.bias = bias.detach()
        self.left = LeftTaps(weight[:, :, -1, : conv.left_taps], batch, width, conv.reach)
        self.rows = weight.new_zeros(batch, weight.shape[1], conv.reach, width + 2 * conv.reach)
        self.first = True
        self.from_above = weight.new_empty(0)

    def begin_row(self) -> None:
        """Take the finished row to those above, and compute their part of every column of the next row."""
        if not self.first:
            done = as_columns(self.left.row)  # the zeros on its left are the padding
            padded = F.pad(done, (0, self.left.reach))
            self.rows = torch.cat([self.rows[:, :, 1:], padded], dim=2)
        self.first = False
        self.from_above = as_rows(F.conv2d(self.rows, self.above, self.bias))
        self.left.clear()

    def put(self, column: int, features: Tensor) -> None:
        """Keep the inputs (B, in) of a column."""
        self.left.put(column, features)

    def at(self, column: int) -> Tensor:
        """The result (B, out) at a column."""
        return self.left.at(column, self.from_above[column])


def as_columns(row: Tensor) -> Tensor:
    """A row kept as (w, B, C) in the layout of convolutions, (B, C, 1, w)."""
    return row.permute(1, 2, 0)[:, :, None]


def as_rows(features: Tensor) -> Tensor:
    """(B, C, 1, w) as (w, B, C), so that a column is contiguous."""
    return features[:, :, 0].permute(2, 0, 1).contiguous()


class RasterStepper(ABC):
    """Keeps count of rows and columns for the steppers of convolutional priors.

    Args:
        embedding: of the codes.
        grid: (h, w).
    """

    def __init__(self, embedding: nn.Embedding, grid: tuple[int, int]):
        self.embedding, self.width, self.place = embedding.weight.detach(), grid[1], 0

    def step(self, previous: Tensor | None) -> Tensor:
        """The logits (B, K) of the next position, given the codes (B,) of the one before."""
        column = self.place % self.width
        if previous is not None:
            self.know((self.place - 1) % self.width, self.embedding[previous])
        if column == 0:
            self.begin_row()
        self.place += 1
        return self.at(column)

    @abstractmethod
    def know(self, column: int, embedded: Tensor) -> None:
        """Take the embedded code (B, C) of a column of the current row."""

    @abstractmethod
    def begin_row(self) -> None:
        """Go from a finished row to the next; called before the first row too."""

    @abstractmethod
    def at(self, column: int) -> Tensor:
        """The logits (B, K) of a column; called once each, in order."""
