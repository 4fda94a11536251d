"""Images of any kind and size to a model's codes and back: grey and transparent ones of any size."""

import io
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from smalti.codec.container import check_size
from smalti.codec.errors import DamagedFile
from smalti.codec.exactness import fitting_profile, what_is_lost
from smalti.codec.tables import ImageEntry
from smalti.errors import SmaltiError
from smalti.images.layers import read_layers
from smalti.images.levels import to_levels
from smalti.images.opening import bad_images
from smalti.images.pixels import recolour_pixels, to_uint8
from smalti.images.preprocessing import Reading, size_text
from smalti.images.reading import Images, on_white, own_values
from smalti.models.autoencoder import Autoencoder
from smalti.modes import using

Alpha = Literal["keep", "drop", "refuse"]


class Picture(NamedTuple):
    """An image as a file keeps it."""

    mode: str  # of MODES
    pixels: NDArray[np.uint8]  # (H, W, 1 or 3)
    alpha: NDArray[np.uint8] | None  # (H, W)
    name: str = ""
    profile: bytes = b""  # ICC
    codes: NDArray[np.int64] | None = None  # (q, h, w), where they are known already

    @property
    def entry(self) -> ImageEntry:
        """What a header says of it."""
        height, width, _ = self.pixels.shape
        return ImageEntry(height, width, self.mode, self.name, self.profile)

    @property
    def image(self) -> Image.Image:
        """As a Pillow image of its mode."""
        colour = Image.fromarray(self.pixels[:, :, 0] if self.pixels.shape[2] == 1 else self.pixels)
        if self.alpha is not None:
            colour.putalpha(Image.fromarray(self.alpha))
        if self.profile:
            colour.info["icc_profile"] = self.profile
        return colour


def to_picture(value: Images, name: str, alpha: Alpha, reading: Reading, *, exact: bool) -> Picture:
    """A path, Pillow image, array or tensor as a picture.

    Args:
        value: one image.
        name: what to call it.
        alpha: keep transparency apart, lay the image on white, or refuse it.
        reading: what becomes of a file's values; its channels are the image's own.
        exact: every value of the file has to be restored, also the colours of invisible pixels, which otherwise become
            white: that costs less.

    Raises:
        SmaltiError: unreadable, too large, transparent where that is refused, or more than what can be restored.
    """
    what = name or (str(value) if isinstance(value, Path | str) else "an image")
    if isinstance(value, np.ndarray | Tensor):
        return _of_array(value, name, what, reading, exact=exact)
    if not isinstance(value, Path | str | bytes | Image.Image):
        raise SmaltiError(
            f"cannot read an image from {type(value).__name__}: give a path, Pillow image, array or tensor"
        )

    def look(image: Image.Image) -> None:
        check_size(image.height, image.width, what)
        if exact and (lost := what_is_lost(image)):
            raise SmaltiError(f"{what} {lost}, which --lossless does not restore; leave it out, or give another file")

    with bad_images(what):
        layers = read_layers(value, what, stated=reading.value_range is not None, look=look)
        if exact and layers.colour.dtype != np.uint8:
            bits = f"values of type {layers.colour.dtype}"
            raise SmaltiError(f"{what} has {bits}, and --lossless restores 8 bits; leave it out, or give another file")
        pixels = to_levels(layers.colour, reading, what)
    channels = pixels.shape[2]
    if channels not in (1, 3):
        raise SmaltiError(
            f"{what} has {channels} bands; a .smalti file holds grey and colour images: use `smalti encode`"
        )
    check_size(pixels.shape[0], pixels.shape[1], what)
    mode, opacity = "L" if channels == 1 else "RGB", layers.opacity
    profile = layers.profile if exact else fitting_profile(layers.profile, channels)
    if opacity is None:
        return Picture(mode, pixels, None, name, profile)
    if alpha == "refuse":
        raise SmaltiError(f"{what} is transparent; --alpha keep stores that apart, --alpha drop lays it on white")
    if alpha == "drop":
        return Picture(mode, recolour_pixels(on_white(pixels, opacity), channels), None, name, profile)
    if not exact:
        pixels = np.where(opacity[:, :, None] == 0, np.uint8(255), pixels)
    return Picture(mode + "A", np.ascontiguousarray(pixels), np.ascontiguousarray(opacity), name, profile)


def _of_array(value: NDArray[Any] | Tensor, name: str, what: str, reading: Reading, *, exact: bool) -> Picture:
    """One array or tensor as a picture: what `to_images` takes, in grey or colour."""
    images = own_values(value, reading)
    images = images if images.ndim == 4 else images[None]
    count, channels, height, width = images.shape
    if count != 1 or channels not in (1, 3):
        raise SmaltiError(f"{what} must be one grey or colour image, not {tuple(value.shape)}")
    check_size(height, width, what)
    if images.dtype == torch.uint8:
        pixels = images[0].permute(1, 2, 0).cpu().numpy()
    else:
        pixels = to_uint8(images)[0].cpu().numpy()
        if exact and not torch.allclose(images, images.mul(255).round() / 255, rtol=0, atol=1e-6):
            raise SmaltiError(
                f"{what} has values between 8-bit levels, which --lossless does not restore; leave it out"
            )
    if exact and value.dtype not in (np.uint8, torch.uint8) and images.dtype == torch.uint8:
        raise SmaltiError(f"{what} has values of type {value.dtype}, and --lossless restores 8 bits; leave it out")
    return Picture("L" if channels == 1 else "RGB", np.ascontiguousarray(pixels), None, name)


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


class PictureModel:
    """An autoencoder for the pictures of a file: of any size, in grey or colour.

    Args:
        model: an autoencoder with a codebook.

    Raises:
        SmaltiError: a continuous model, or one for images of one size only.
    """

    def __init__(self, model: Autoencoder):
        size, self.channels = model.networks.fixed_size, model.config.preprocessing.channels
        if size is not None:
            raise SmaltiError(f"this model takes images of {size_text(size)} pixels only; use one that takes any size")
        if self.channels not in (1, 3):
            raise SmaltiError(f"this model is of {self.channels} channels; a .smalti file holds grey and colour images")
        self.model, self.bottleneck = model, model.codes_bottleneck

    def grid(self, entry: ImageEntry, depth: int) -> tuple[int, int, int]:
        """(depth, h, w) of the codes of an image."""
        return depth, *self.model.networks.grid_of(entry.height, entry.width)

    def encode(self, pixels: NDArray[np.uint8], depth: int) -> NDArray[np.int64]:
        """The codes (depth, h, w) of uint8 (H, W, C)."""
        codes = self.model.encode(pixels)[0].cpu().numpy()
        return codes.reshape(self.bottleneck.num_codebooks, *codes.shape[-2:])[:depth]

    def codes_of(self, picture: Picture, depth: int) -> NDArray[np.int64]:
        """The codes (depth, h, w) of a picture: its own, where they are known."""
        return self.encode(picture.pixels, depth) if picture.codes is None else picture.codes[:depth]

    def decode(self, codes: NDArray[np.int64], entry: ImageEntry) -> Tensor:
        """The image float32 (C, H, W) in [0, 1] of codes (depth, h, w): the model's C, the entry's H and W."""
        grids = torch.from_numpy(codes)
        grids = grids if self.bottleneck.num_codebooks == 1 else grids[None]
        with using(self.model) as model:
            image = model.tiles.decode(grids, lambda part: _decoded(model, part))[0]
        return image[:, : entry.height, : entry.width]

    def pixels(self, codes: NDArray[np.int64], entry: ImageEntry) -> NDArray[np.uint8]:
        """The image uint8 (H, W, C) of codes, with the channels of its mode."""
        return recolour_pixels(to_uint8(self.decode(codes, entry)[None])[0].numpy(), entry.channels)


def _decoded(model: Autoencoder, codes: Tensor) -> Tensor:
    """The image (1, C, H, W) of codes (1, *grid), always alone: `Autoencoder.decode` would fill up a batch."""
    latents = model.codes_bottleneck.decode(codes.to(model.device))
    return model.likelihood.mean(model.decoder(latents)).cpu()
