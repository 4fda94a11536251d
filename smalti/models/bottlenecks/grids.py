"""Features of any layout as grids (B, C, h, w), and the positions that a mask keeps as grids of one position."""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.shapes import check_shape

NOTHING = -1  # the code of a position that a mask leaves out
GRIDS = {1: "T", 2: "h w", 3: "t h w"}  # letters of a grid, by its number of axes


def flatten_grid(features: Tensor) -> Tensor:
    """Every grid position as a row: (B, D, h, w) to (N, D)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def unflatten_grid(vectors: Tensor, like: Tensor) -> Tensor:
    """The inverse of `flatten_grid`: (N, D) to (B, D, h, w), with B, h, w of the tensor `like`."""
    batch, _, height, width = like.shape
    return vectors.view(batch, height, width, vectors.shape[1]).permute(0, 3, 1, 2)


def check_tensor(value: object, what: str) -> None:
    """Raise SmaltiError unless it is a tensor with all of its numbers in place."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        kind = value.layout if isinstance(value, Tensor) else type(value).__name__
        raise SmaltiError(f"{what} must be a dense tensor of PyTorch, not {kind}")


class Layout(NamedTuple):
    """The grid of features or latents, and where their channels stand.

    A sequence is a grid of one row and a video one of t * h rows, so that what works on (B, C, h, w) works on all.
    """

    grid: tuple[int, ...]  # the sizes of its one to three axes
    channel_axis: int  # 1 to len(grid) + 1

    @classmethod
    def of(cls, features: Tensor, channels: int, channel_axis: int) -> Self:
        """The layout of features (B, C, *grid), whose channels are moved to `channel_axis`.

        Raises:
            SmaltiError: another number of axes or channels, no such axis, or no floating-point numbers.
        """
        check_tensor(features, "features")
        letters = GRIDS.get(features.ndim - 2, "h w").split()
        axis = positive_axis(channel_axis, len(letters))
        check_shape(features, " ".join(["B", *letters[: axis - 1], "C", *letters[axis - 1 :]]), "features", C=channels)
        if not features.is_floating_point():
            raise SmaltiError(f"features must be floating-point numbers, not {features.dtype}")
        return cls((*features.shape[1:axis], *features.shape[axis + 1 :]), axis)

    @property
    def sides(self) -> tuple[int, int]:
        """(h, w) of the grid as rows and columns."""
        *first, width = self.grid
        return math.prod(first), width

    def planar(self, features: Tensor) -> Tensor:
        """Features as (B, C, h, w)."""
        if len(self.grid) == 2 and self.channel_axis == 1:
            return features
        moved = features.movedim(self.channel_axis, 1)
        return moved.reshape(*moved.shape[:2], *self.sides)

    def planar_mask(self, mask: Tensor, batch: int) -> Tensor:
        """A mask (B, *grid) as (B, h, w).

        Raises:
            SmaltiError: another shape, or no booleans.
        """
        check_tensor(mask, "a mask")
        wanted = (batch, *self.grid)
        if tuple(mask.shape) != wanted or mask.dtype != torch.bool:
            raise SmaltiError(f"a mask must be bool of the shape {wanted}, not {mask.dtype} {tuple(mask.shape)}")
        return mask.reshape(batch, *self.sides)

    def kept(self, planar: Tensor, mask: Tensor | None) -> "Kept | None":
        """What is left of (B, C, h, w) by a mask, or where there is nothing; None where all of it is."""
        if mask is None and planar.numel():
            return None
        if mask is None:
            return Kept(planar.new_ones(len(planar), *self.sides, dtype=torch.bool))
        return Kept(self.planar_mask(mask, len(planar)).to(planar.device))

    def latents(self, planar: Tensor) -> Tensor:
        """Latents (B, D, h, w) laid out as the features were."""
        if len(self.grid) == 2 and self.channel_axis == 1:
            return planar
        return planar.reshape(*planar.shape[:2], *self.grid).movedim(1, self.channel_axis)

    def codes(self, planar: Tensor) -> Tensor:
        """Codes (B, ..., h, w) on the grid."""
        if len(self.grid) == 2 or planar.shape[-2:] != self.sides:
            return planar
        return planar.reshape(*planar.shape[:-2], *self.grid)


def positive_axis(channel_axis: int, grid_axes: int) -> int:
    """The axis of the channels, counted from the front.

    Raises:
        SmaltiError: there is no such axis, or it is that of the batch.
    """
    axis = channel_axis + grid_axes + 2 if channel_axis < 0 else channel_axis
    if not 1 <= axis <= grid_axes + 1:
        raise SmaltiError(f"channel_axis must lie in [1, {grid_axes + 1}], or be -1 for the last, not {channel_axis}")
    return axis


class Kept:
    """The positions of a grid that a mask keeps; each becomes an image of one position.

    Args:
        mask: (B, h, w) bool, True where a position counts.
    """

    def __init__(self, mask: Tensor):
        self.mask = mask
        self.places = mask.flatten().nonzero()[:, 0]
        self.images = self.places // max(1, mask[0].numel()) if len(mask) else self.places  # which image each is of

    def of(self, features: Tensor) -> Tensor:
        """The kept positions of (B, C, h, w), as (n, C, 1, 1)."""
        return flatten_grid(features)[self.places][:, :, None, None]

    def latents(self, kept: Tensor) -> Tensor:
        """(n, D, 1, 1) as (B, D, h, w), zero elsewhere."""
        rows = kept.new_zeros(self.mask.numel(), kept.shape[1]).index_copy(0, self.places, kept[:, :, 0, 0])
        return unflatten_grid(rows, self.mask[:, None])

    def codes(self, kept: Tensor) -> Tensor:
        """Codes (n, ..., 1, 1) as (B, ..., h, w), `NOTHING` elsewhere."""
        kept = kept[..., 0, 0]
        rows = kept.new_full((self.mask.numel(), *kept.shape[1:]), NOTHING).index_copy(0, self.places, kept)
        return rows.view(*self.mask.shape, *kept.shape[1:]).movedim((1, 2), (-2, -1))

    def sums(self, kept: Tensor) -> Tensor:
        """What each position gives, (n,), summed over each image: (B,)."""
        return kept.new_zeros(len(self.mask)).index_add(0, self.images, kept)
