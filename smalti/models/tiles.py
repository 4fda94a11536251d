"""Large images in tiles, so that memory stays bounded: the one place that cuts images and grids.

An image of more than `WHOLE_PIXELS`, padded to the stride, goes through the encoder in tiles of `TILE` pixels, each
with `HALO` pixels of what lies around it, and only what the tile is for is kept; latents go through the decoder
likewise. Where a code or a pixel depends on no more than the halo (`Networks.reach`), the tiles together give what the
whole would, up to the rounding of convolutions of another size. Networks that see more give something else, and a
warning says so.
"""

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

from torch import Tensor

from smalti.images.pixels import pad_to_multiple
from smalti.models.networks import Networks

Place = tuple[slice, ...]  # (rows, columns), of a grid or of an image
TILE, HALO = 512, 64  # pixels, rounded up to the stride
WHOLE_PIXELS = 1 << 20  # images up to this size are not cut


class Tile(NamedTuple):
    """A part of a grid, as places in it."""

    keep: Place  # what the tile is for
    around: Place  # that with its halo: what the networks see
    inside: Place  # where the former lies in the latter

    def in_pixels(self, stride: int) -> "Tile":
        """The same places in the image of the grid."""
        return Tile(*(tuple(slice(part.start * stride, part.stop * stride) for part in place) for place in self))


class Mosaic:
    """A grid or an image (..., h, w) of these (h, w), put together from parts."""

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self._whole: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was put in."""
        return self._whole is None

    @property
    def whole(self) -> Tensor:
        """What was put in."""
        assert self._whole is not None
        return self._whole

    def put(self, place: Place, part: Tensor) -> None:
        """Put a part in its place; one that is all of it is taken as it is."""
        if tuple(part.shape[-2:]) == tuple(self.size):
            self._whole = part
            return
        if self._whole is None:
            self._whole = part.new_empty(*part.shape[:-2], *self.size)
        self._whole[..., *place] = part


class Tiles:
    """How images of any size go through networks.

    Args:
        networks: those of one size are never cut.
    """

    def __init__(self, networks: Networks):
        self.networks, self.stride = networks, networks.stride
        self.side, self.halo = -(-TILE // self.stride), -(-HALO // self.stride)  # in positions of the grid

    @property
    def exact(self) -> bool:
        """Whether tiles give what the whole image would, up to rounding."""
        reach = self.networks.reach
        return reach is not None and reach <= self.halo * self.stride

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of an image as the networks see it."""
        rows, columns = self.networks.fixed_size or (self.stride, self.stride)
        return height + -height % rows, width + -width % columns

    def are_several(self, height: int, width: int) -> bool:
        """Whether an image of this size is cut."""
        rows, columns = self.padded(height, width)
        return self.networks.fixed_size is None and rows * columns > WHOLE_PIXELS

    def of(self, height: int, width: int) -> Iterator[Tile]:
        """The tiles of an image of this size, row by row; the image itself where it is not large.

        Warns where tiles differ from the whole.
        """
        cut, grid = self.are_several(height, width), self.networks.grid_of(height, width)
        if cut and not self.exact:
            reach = self.networks.reach
            sees = "all of an image" if reach is None else f"{reach} pixels around each"
            text = f"images above {WHOLE_PIXELS:,} pixels are cut into tiles with {HALO} pixels around them, and the "
            warnings.warn(f"{text}networks of this model see {sees}: the result is not that of the whole", stacklevel=2)
        axes = [self._along(length, self.side if cut else length) for length in grid]
        return (Tile(*map(tuple, zip(*pair, strict=True))) for pair in product(*axes))

    def _along(self, length: int, side: int) -> list[tuple[slice, slice, slice]]:
        found = []
        for start in range(0, length, side):
            stop, first = min(start + side, length), max(0, start - self.halo)
            around = slice(first, min(stop + self.halo, length))
            found.append((slice(start, stop), around, slice(start - first, stop - first)))
        return found

    def cut(self, images: Tensor, tile: Tile) -> Tensor:
        """What the encoder sees of images (..., C, H, W) for a tile: padded to the stride by repeating the edge."""
        part = images[..., *tile.in_pixels(self.stride).around]  # a slice ends where the image does
        return pad_to_multiple(part, self.networks.fixed_size or self.stride)

    def encode(
        self, images: Tensor, features: Callable[[Tensor], Tensor], function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The grid (B, ..., h, w) that a function makes of the features of images (B, C, H, W), position by position.

        Args:
            images: of one size.
            features: the encoder, from images to (B, F, h, w).
            function: of the features of each tile.
        """
        height, width = images.shape[-2:]
        mosaic = Mosaic(self.networks.grid_of(height, width))
        for tile in self.of(height, width):
            mosaic.put(tile.keep, function(features(self.cut(images, tile))[..., *tile.inside]))
        return mosaic.whole

    def decode(self, latents: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The images (B, C, H, W) that a function, the decoder, makes of a grid (B, ..., h, w): latents or codes."""
        height, width = (side * self.stride for side in latents.shape[-2:])
        if not self.are_several(height, width):
            return function(latents)
        mosaic = Mosaic((height, width))
        for tile in self.of(height, width):
            pixels = tile.in_pixels(self.stride)
            mosaic.put(pixels.keep, function(latents[..., *tile.around])[..., *pixels.inside])
        return mosaic.whole
