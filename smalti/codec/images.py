"""Images of any kind and size to a model's codes and back: grey and transparent ones, large photographs in tiles."""

import io
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from smalti.codec.container import check_size
from smalti.codec.errors import DamagedFile
from smalti.codec.tables import ImageEntry
from smalti.errors import SmaltiError
from smalti.images.pixels import recolour_pixels, to_uint8
from smalti.images.reading import Images, bad_images, open_image, read_image
from smalti.models.autoencoder import Autoencoder
from smalti.modes import using

Alpha = Literal["keep", "drop", "refuse"]
Place = tuple[slice, ...]  # (rows, columns)
TILE, HALO = 512, 64  # pixels: larger images are worked on in tiles, each with what lies around it
WHOLE_PIXELS = 1 << 20  # images up to this size are not cut


class Picture(NamedTuple):
    """An image as a file keeps it."""

    mode: str  # of MODES
    pixels: NDArray[np.uint8]  # (H, W, 1 or 3)
    alpha: NDArray[np.uint8] | None  # (H, W)
    name: str = ""

    @property
    def entry(self) -> ImageEntry:
        """What a header says of it."""
        height, width, _ = self.pixels.shape
        return ImageEntry(height, width, self.mode, self.name)

    @property
    def image(self) -> Image.Image:
        """As a Pillow image of its mode."""
        colour = Image.fromarray(self.pixels[:, :, 0] if self.pixels.shape[2] == 1 else self.pixels)
        if self.alpha is not None:
            colour.putalpha(Image.fromarray(self.alpha))
        return colour


def to_picture(value: Images, name: str, alpha: Alpha, *, exact: bool) -> Picture:
    """A path, Pillow image, array or tensor as a picture.

    Args:
        value: one image.
        name: what to call it.
        alpha: keep transparency apart, lay the image on white, or refuse it.
        exact: leave the colours of invisible pixels as they are; otherwise they become white, which costs less.

    Raises:
        SmaltiError: unreadable, too large, or transparent where that is refused.
    """
    if isinstance(value, Tensor):
        value = (value.permute(1, 2, 0) if value.dtype == torch.uint8 else to_uint8(value[None])[0]).cpu().numpy()
    if isinstance(value, np.ndarray):
        value = Image.fromarray(value[:, :, 0] if value.ndim == 3 and value.shape[2] == 1 else value)
    what = name or (str(value) if isinstance(value, Path | str) else "an image")
    with bad_images(what):
        image = open_image(value, what)
        check_size(image.height, image.width, what)
        grey = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;")
        if not image.has_transparency_data or alpha == "drop":
            pixels = read_image(image, 1 if grey else 3, what)
            return Picture("L" if grey else "RGB", pixels, None, name)
        if alpha == "refuse":
            raise SmaltiError(f"{what} is transparent; --alpha keep stores that apart, --alpha drop lays it on white")
        layer = np.array(ImageOps.exif_transpose(image).convert("RGBA"))
    pixels, opacity = layer[:, :, : 1 if grey else 3], layer[:, :, 3]
    if not exact:
        pixels[opacity == 0] = 255
    return Picture("LA" if grey else "RGBA", np.ascontiguousarray(pixels), np.ascontiguousarray(opacity), name)


def pack_alpha(alpha: NDArray[np.uint8]) -> bytes:
    """Opacity (H, W) as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(alpha).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def unpack_alpha(data: bytes, entry: ImageEntry) -> NDArray[np.uint8]:
    """What `pack_alpha` packed, of an image that has this entry; a DamagedFile, if it cannot be that."""
    size = entry.width, entry.height
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size == size and image.mode == "L":
                return np.asarray(image)
    except Exception as error:  # Pillow's errors for damaged files are many
        raise DamagedFile(f"an alpha channel is damaged ({error})") from error
    raise DamagedFile(f"an alpha channel of {image.size} {image.mode} for an image of {size}")


class TiledModel:
    """An autoencoder for images of any size: large ones go through it in tiles, so that memory stays bounded.

    Args:
        model: an autoencoder with a codebook.

    Raises:
        SmaltiError: a continuous model, or one for images of one size only.
    """

    def __init__(self, model: Autoencoder):
        size = model.networks.fixed_size
        if size is not None:
            raise SmaltiError(f"this model takes images of {size} pixels only; use one that takes any size")
        self.model, self.bottleneck = model, model.codes_bottleneck
        self.channels = model.config.preprocessing.channels
        self.tile = -(-TILE // model.stride)  # in codes
        self.halo = -(-HALO // model.stride)

    def grid(self, entry: ImageEntry, depth: int) -> tuple[int, int, int]:
        """(depth, h, w) of the codes of an image."""
        return depth, -(-entry.height // self.model.stride), -(-entry.width // self.model.stride)

    def encode(self, pixels: NDArray[np.uint8], depth: int) -> NDArray[np.int64]:
        """The codes (depth, h, w) of uint8 (H, W, C)."""
        grid = [-(-side // self.model.stride) for side in pixels.shape[:2]]
        codes = np.zeros((self.bottleneck.num_codebooks, *grid), np.int64)
        for keep, around, inside in self._tiles(*grid):
            part = torch.from_numpy(recolour_pixels(pixels[self._in_pixels(around)], self.channels).copy())
            codes[..., *keep] = self.model.encode(part.permute(2, 0, 1))[0][..., *inside].cpu().numpy()
        return codes[:depth]

    def decode(self, codes: NDArray[np.int64], entry: ImageEntry) -> Tensor:
        """The image float32 (C, H, W) in [0, 1] of codes (depth, h, w): the model's C, the entry's H and W."""
        image = torch.empty(self.channels, *(side * self.model.stride for side in codes.shape[1:]))
        for keep, around, inside in self._tiles(*codes.shape[1:]):
            part = torch.from_numpy(np.ascontiguousarray(codes[..., *around]))
            found = self._decode_tile(part if self.bottleneck.num_codebooks == 1 else part[None])
            image[..., *self._in_pixels(keep)] = found[..., *self._in_pixels(inside)]
        return image[:, : entry.height, : entry.width]

    def _decode_tile(self, codes: Tensor) -> Tensor:
        """The image (C, H, W) of codes (1, *grid), always alone: `Autoencoder.decode` would fill up a batch."""
        with using(self.model) as model:
            latents = model.codes_bottleneck.decode(codes.to(model.device))
            return model.likelihood.mean(model.decoder(latents))[0].cpu()

    def pixels(self, codes: NDArray[np.int64], entry: ImageEntry) -> NDArray[np.uint8]:
        """The image uint8 (H, W, C) of codes, with the channels of its mode."""
        return recolour_pixels(to_uint8(self.decode(codes, entry)[None])[0].numpy(), entry.channels)

    def _tiles(self, height: int, width: int) -> Iterator[tuple[Place, ...]]:
        """Tiles of a grid of codes: the place to keep, that with its halo, and where the former lies in the latter."""
        whole = height * width * self.model.stride**2 <= WHOLE_PIXELS
        axes = [self._along(length, length if whole else self.tile) for length in (height, width)]
        return (tuple(zip(*pair, strict=True)) for pair in product(*axes))

    def _along(self, length: int, tile: int) -> Iterator[tuple[slice, slice, slice]]:
        for start in range(0, length, tile):
            stop, first = min(start + tile, length), max(0, start - self.halo)
            yield slice(start, stop), slice(first, min(stop + self.halo, length)), slice(start - first, stop - first)

    def _in_pixels(self, place: Place) -> Place:
        return tuple(slice(part.start * self.model.stride, part.stop * self.model.stride) for part in place)
