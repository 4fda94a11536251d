"""Causal convolutions drawn natively: what a prior does at each row and column, as a list of operations for the kernel.

The kernel knows nothing of priors: `ops/kernels/raster.h` runs the list. The stepper of each prior stays the reference.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from smalti.ops.native import Kernels, Packed, kernels_for
from smalti.priors.base import CausalPrior, SamplePlan
from smalti.priors.causal import CausalConv2d
from smalti.priors.sampling import gumbel_noise

PRODUCT, RELU, ELU, GATED, GLU, ADD, SHIFT, ATTEND, DRAW = range(9)  # as in raster.h
FIELDS = 20  # whole numbers of an operation there
LANES = 16  # of the widest vectors: what is kept for attention is filled up to them


@dataclass(frozen=True)
class Place:
    """Where a value of some channels lies for each image, row and column.

    Attributes:
        memory: holds it.
        channels: C.
        image: floats from one image to the next; 0 where all share it.
        row: from one row to the next; 0 where every row overwrites it.
        column: from one column to the next.
        offset: of the first, in floats.
    """

    memory: Tensor
    channels: int
    image: int = 0
    row: int = 0
    column: int = 0
    offset: int = 0

    @property
    def numbers(self) -> list[int]:
        """As the kernel takes it."""
        return [self.memory.data_ptr() + 4 * self.offset, self.image, self.row, self.column]


@dataclass(frozen=True)
class Window:
    """The last rows of a value, with zeros on both sides, so that a window over columns is contiguous.

    Attributes:
        memory: (B, rows, reach + w + reach, C).
        reach: columns of zeros on each side.
    """

    memory: Tensor
    reach: int

    def row(self, index: int, shift: int = 0) -> Place:
        """The value at each column of a row, `shift` columns to the right."""
        _, rows, width, channels = self.memory.shape
        offset = (index % rows * width + self.reach + shift) * channels
        return Place(self.memory, channels, rows * width * channels, 0, channels, offset)

    @property
    def current(self) -> Place:
        """The last row: the one being drawn."""
        return self.row(-1)


class Raster:
    """The list of operations, and the memory they work on.

    Args:
        native: the kernels.
        batch: B.
        width: w, columns of the grid.
        like: gives the type of the memory.
    """

    def __init__(self, native: Kernels, batch: int, width: int, like: Tensor):
        self.native, self.batch, self.width, self.like = native, batch, width, like
        self.by_row: list[list[int]] = []
        self.by_column: list[list[int]] = []
        self.held: list[Any] = []  # what the addresses point to

    def point(self, channels: int) -> Place:
        """Memory for a value of the current column."""
        return Place(self.like.new_zeros(self.batch, channels), channels, channels)

    def line(self, channels: int) -> Place:
        """Memory for a value of all columns of the current row."""
        return Place(
            self.like.new_zeros(self.batch, self.width, channels), channels, self.width * channels, 0, channels
        )

    def window(self, channels: int, rows: int, reach: int) -> Window:
        """Memory for the last rows of a value; every new row moves the others up."""
        window = Window(self.like.new_zeros(self.batch, rows, self.width + 2 * reach, channels), reach)
        if rows > 1:
            everything = replace(window.row(0), offset=0)
            self._add(self.by_row, SHIFT, everything, everything, depth=everything.image // rows, columns=rows)
        return window

    def bias(self, layer: nn.Linear | nn.Conv2d | CausalConv2d, extra: Tensor | None = None) -> Place:
        """A layer's bias (C,) plus something of (C,) or (B, C)."""
        layer = layer.conv if isinstance(layer, CausalConv2d) else layer
        assert layer.bias is not None
        total = (layer.bias if extra is None else layer.bias + extra).detach().contiguous()
        return Place(total, total.shape[-1], total.shape[-1] if total.ndim > 1 else 0)

    def product(
        self, source: Place, matrix: Tensor, start: Place, out: Place | None = None, *, rows: bool = False
    ) -> Place:
        """start + source x matrix (out, depth); the source may go on over the columns to its right."""
        packed = Packed(self.native, matrix.detach(), matrix.new_zeros(len(matrix))).panels
        out = out or (self.line if rows else self.point)(len(matrix))
        lists = self.by_row if rows else self.by_column
        self._add(lists, PRODUCT, source, out, start, packed, matrix.shape[1], len(matrix))
        return out

    def linear(self, source: Place, layer: nn.Linear | nn.Conv2d, extra: Tensor | None = None, **options: Any) -> Place:
        """A linear layer or a 1x1 convolution."""
        return self.product(source, layer.weight.flatten(1), self.bias(layer, extra), **options)

    def activation(self, kind: int, source: Place, out: Place | None = None, *, rows: bool = False) -> Place:
        """RELU or ELU of a value, or one of its halves GATED by the other (tanh, sigmoid), or GLU (plain, sigmoid)."""
        channels = source.channels // 2 if kind in (GATED, GLU) else source.channels
        out = out or (self.line if rows else self.point)(channels)
        self._add(self.by_row if rows else self.by_column, kind, source, out, columns=channels)
        return out

    def add(self, source: Place, more: Place, out: Place | None = None) -> Place:
        """The sum of two values."""
        out = out or self.point(source.channels)
        self._add(self.by_column, ADD, source, out, more, columns=source.channels)
        return out

    def above(self, window: Window, weight: Tensor, start: Place) -> Place:
        """A convolution (out, in, rows, columns) over the first rows of a window, for all columns at once."""
        out = self.line(len(weight))
        for row, taps in enumerate(weight.unbind(2)):  # (out, in, columns)
            matrix = taps.permute(0, 2, 1).flatten(1)
            start = self.product(window.row(row, -window.reach), matrix, start, out, rows=True)
        return out

    def left(self, window: Window, weight: Tensor, start: Place) -> Place:
        """Taps (out, in, columns) over the current row of a window, from `reach` columns to the left on."""
        return self.product(window.row(-1, -window.reach), weight.permute(0, 2, 1).flatten(1), start)

    def causal(self, conv: CausalConv2d, source: Place | Window, activation: int, start: Place | None = None) -> Place:
        """A causal convolution of the activation of a value; of a window as it is, for the first layer.

        Args:
            conv: the layer.
            source: its input at the current column, or a window that is filled otherwise.
            activation: of the input.
            start: in place of the bias.
        """
        weight = conv.conv.weight
        window = source if isinstance(source, Window) else self.window(source.channels, conv.reach + 1, conv.reach)
        from_above = self.above(window, weight[:, :, :-1], start or self.bias(conv))
        if isinstance(source, Place):
            self.activation(activation, source, window.current)
        return self.left(window, weight[:, :, -1, : conv.left_taps], from_above)

    def attend(self, qkv: Place, heads: int, key_width: int, value_width: int, length: int) -> Place:
        """Attention of this position over itself and all before it."""
        length = -(-length // LANES) * LANES
        out, size = self.point(heads * value_width), heads * (key_width + value_width) * length
        cache = Place(self.like.new_zeros(self.batch, size), size, size)
        extra = [heads, key_width, value_width, length]
        self._add(self.by_column, ATTEND, qkv, out, cache, columns=out.channels, extra=extra)
        return out

    def draw(self, logits: Place, embedding: Tensor, window: Window) -> None:
        """Draw a code, and put its vector into the window of the first layer; the last operation."""
        self._add(self.by_column, DRAW, logits, window.current, None, embedding, embedding.shape[1], embedding.shape[0])

    def _add(
        self,
        lists: list[list[int]],
        kind: int,
        source: Place,
        out: Place,
        more: Place | None = None,
        table: Tensor | None = None,
        depth: int = 0,
        columns: int = 0,
        extra: list[int] | None = None,
    ) -> None:
        self.held += [source.memory, out.memory, more and more.memory, table]
        address = 0 if table is None else table.data_ptr()
        places = [*source.numbers, *(more or source).numbers, *out.numbers]
        lists.append([kind, *places, address, depth, columns, *(extra or [0] * 4)])

    def run(self, plan: SamplePlan, size: int, places: int) -> Tensor:
        """Draw codes (B, T) as planned, a row a call, with the random numbers of `CausalPrior._sample`."""
        operations = torch.tensor([*self.by_row, *self.by_column])
        assert operations.shape[1] == FIELDS
        codes, known, rules = plan.known.clone(), plan.mask.long(), plan.rules
        top_k, top_p = rules.top_k or 0, 1.0 if rules.top_p is None else rules.top_p
        like = self.like.new_empty(self.width, self.batch, size)
        for start in tqdm(range(0, places, self.width), desc="drawing", disable=not plan.progress, leave=False):
            row, end = codes[:, start : start + self.width].T.contiguous(), start + self.width
            noise = gumbel_noise(like, plan.generator)  # the same as in a call for each column
            self.native.raster_row(
                operations, noise, known[start:end], row, len(self.by_row), len(operations), self.batch, self.width,
                start // self.width, size, top_k, rules.temperature, top_p,
            )  # fmt: skip
            codes[:, start:end] = row.T
        return codes


class RasterPrior(CausalPrior):
    """A causal prior that can say itself as operations: drawn natively where there are kernels, with the same codes."""

    @abstractmethod
    def _describe(self, raster: Raster, condition: Tensor | None) -> None:
        """Add what happens at a row and at a column, from the codes' window to the draw."""

    def _sample(self, plan: SamplePlan) -> Tensor:
        like = next(self.parameters()).detach()
        native = kernels_for(like)
        if native is None or plan.guided_condition is not None:
            return super()._sample(plan)
        raster = Raster(native, plan.num, self.grid[1], like)
        self._describe(raster, plan.condition)
        return raster.run(plan, self.codebook_size, self.num_codes)
