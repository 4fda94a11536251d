"""Image files of any kind as arrays (H, W, C): grey, colour, or of any number of bands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from smalti.errors import SmaltiError
from smalti.images import jpeg
from smalti.images.errors import BadImage
from smalti.images.layers import Layers, read_layers
from smalti.images.levels import check_values, to_levels
from smalti.images.opening import LARGEST_PX, bad_images, read_bytes
from smalti.images.pixels import recolour_images, recolour_pixels, shrink, to_uint8
from smalti.images.preprocessing import Reading, Size, sides


def read_image(file: Path | str | bytes | Image.Image, channels: int = 3, name: str | None = None) -> np.ndarray:
    """Read an image as (H, W, C): uint8 of a file of 8 bits, otherwise the values that it has, of a type that fits.

    Those of PGM and PPM are scaled by the maximum that the file states, to 255 or 65535.

    No scale is guessed; what models see of a file is said by `read_pixels`, as is all else.

    Raises:
        BadImage: missing, empty, truncated, no image, too large, of another number of bands, or with NaN or infinity.
    """
    reading, name = Reading(channels), _name_of(file, name)
    with bad_images(name):
        layers = _layers_of(file, reading, name)
        if layers.colour.dtype == np.uint8 or layers.opacity is not None:
            return _pixels_of(layers, reading, name)
        check_values(layers.colour, name)
        check_bands(layers.colour.shape[2], channels, name)
        return recolour_pixels(layers.colour, channels)


def read_pixels(file: Path | str | bytes | Image.Image, reading: Reading, name: str | None = None) -> np.ndarray:
    """Read an image as uint8 (H, W, C), as a model sees it.

    EXIF rotation is applied, palettes are resolved, transparency is composited on white unless it is asked for as a
    band, grey and colour become each other; values are scaled as `smalti.images.levels` says. Of an animation, or of
    pages, the first is read.

    Args:
        file: a path, the bytes of a file (of pictures, or of one numpy array), or a Pillow image.
        reading: what becomes of its pixels.
        name: what to call it in an error; by default the path.

    Raises:
        BadImage: as of `read_image`; or values whose scale has to be stated.
    """
    name = _name_of(file, name)
    with bad_images(name):
        return _pixels_of(_layers_of(file, reading, name), reading, name)


def _name_of(file: Path | str | bytes | Image.Image, name: str | None) -> str:
    return name or (str(file) if isinstance(file, Path | str) else "image")


def _layers_of(file: Path | str | bytes | Image.Image, reading: Reading, name: str) -> Layers:
    """What a file holds; of a JPEG that may be reduced, as soon as it is reduced."""
    channels, at_least, stated = reading.channels, reading.at_least, reading.value_range is not None
    if at_least is not None and not isinstance(file, Image.Image):
        file = read_bytes(file)
        quick = jpeg.decode(file, channels, at_least, LARGEST_PX)
        if quick is not None:
            return Layers(quick)
    return read_layers(file, name, channels=channels, at_least=at_least, stated=stated)


def _pixels_of(layers: Layers, reading: Reading, name: str) -> np.ndarray:
    pixels = to_levels(layers.colour, reading, name)
    if layers.opacity is not None:
        pixels = on_white(pixels, layers.opacity)
    check_bands(pixels.shape[2], reading.channels, name)
    return recolour_pixels(pixels, reading.channels)


def pixels_as(pixels: np.ndarray, reading: Reading, name: str) -> np.ndarray:
    """The uint8 (H, W, C), grey or colour, of a data set that holds pixels, as a `Reading` has it.

    Raises:
        BadImage: another number of bands.
    """
    check_bands(pixels.shape[2], reading.channels, name)
    return recolour_pixels(to_levels(pixels, reading, name), reading.channels)


def check_bands(found: int, channels: int, name: str) -> None:
    """Raise a BadImage unless `found` bands are as many as asked for, or both are grey or colour."""
    if found != channels and not {found, channels} <= {1, 3}:
        bands = "1 band" if found == 1 else f"{found} bands"
        raise BadImage(
            f"{name}: has {bands} where {channels} are asked for; give other images, or train with --channels {found}"
        )


def on_white(colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Transparent uint8 (H, W, 1 or 3) on white, in colour."""
    layer = Image.fromarray(np.dstack([np.broadcast_to(colour, (*opacity.shape, 3)), opacity]))
    return np.array(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


def fit(pixels: np.ndarray, size: Size) -> np.ndarray:
    """The largest centre of uint8 (H, W, C) that has the form of (h, w), resized to (h, w, C); of one side a square."""
    height, width = pixels.shape[:2]
    tall, wide = largest_window((height, width), size)
    top, left = (height - tall) // 2, (width - wide) // 2
    centre = torch.from_numpy(np.ascontiguousarray(pixels[top : top + tall, left : left + wide]))
    return shrink(centre[None], sides(size))[0].numpy()


def largest_window(image: tuple[int, int], size: Size) -> tuple[int, int]:
    """(height, width) of the largest part of an image (H, W) that has the form of (h, w); of one side a square."""
    (height, width), (rows, columns) = image, sides(size)
    if height * columns > width * rows:
        return max(1, width * rows // columns), width
    return height, max(1, height * columns // rows)


Images = Any  # one or a list of: path, Pillow image, uint8 (H, W[, C]) array, float [0, 1] ([B, ]C, H, W) tensor


def to_images(values: Images, reading: Reading) -> list[torch.Tensor]:
    """Convert images of any supported type to a list of float [0, 1] tensors (C, H, W).

    Args:
        values: one of, or a list of: a path; a Pillow image; a numpy array, uint8 or float [0, 1], (H, W) or (H, W, C)
            or (B, H, W, C); a tensor, float [0, 1] or uint8, (C, H, W) or (B, C, H, W).
        reading: C, and the scale of files and of integers of more than 8 bits; grey is made into colour and colour into
            grey where needed.

    Raises:
        SmaltiError: another type, another number of axes or channels, no pixels, or float values outside [0, 1].
    """
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return [image for value in values for image in to_images(value, reading)]
    if isinstance(values, str | Path | bytes | Image.Image):
        values = read_pixels(values, reading)
    tensor = own_values(values, reading)
    if tensor.shape[-3] != reading.channels and {tensor.shape[-3], reading.channels} <= {1, 3}:
        if tensor.dtype == torch.uint8:
            pixels = recolour_pixels(tensor.movedim(-3, -1).cpu().numpy(), reading.channels)
            tensor = torch.from_numpy(pixels).movedim(-1, -3)
        else:
            tensor = recolour_images(tensor, reading.channels)
    check_bands(tensor.shape[-3], reading.channels, "an image")
    tensor = tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor
    return list(tensor) if tensor.ndim == 4 else [tensor]


def own_values(values: Any, reading: Reading) -> torch.Tensor:
    """An array or a tensor of images with channels of its own, (C, H, W) or (B, C, H, W): uint8, or float32 in [0, 1].

    Integers of more than 8 bits are scaled to uint8 as a file's would be.

    Raises:
        SmaltiError: another type or number of axes, no pixels, or float values outside [0, 1].
    """
    if isinstance(values, np.ndarray):
        _check_shape(values.shape, axes=(2, 3, 4))
        values = np.asarray(values)  # a matrix has two axes whatever is asked of it
        values = values[:, :, None] if values.ndim == 2 else values
        if values.dtype != np.uint8:
            as_float = values.dtype.kind == "f"
            values = values.astype(np.float32) if as_float else to_levels(values, reading, "an array")
        values = torch.from_numpy(np.require(values, requirements=["C", "W"])).movedim(-1, -3)
    if isinstance(values, torch.Tensor) and (values.is_meta or values.layout != torch.strided):
        raise SmaltiError("a tensor without values of its own (sparse, or on the device meta); give a dense one")
    if not isinstance(values, torch.Tensor):
        kinds = "give a path, Pillow image, array or tensor"
        raise SmaltiError(f"cannot read an image from {type(values).__name__}: {kinds}")
    _check_shape(values.shape, axes=(3, 4))
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        return torch.from_numpy(to_levels(values.cpu().numpy(), reading, "a tensor"))
    tensor = values.float()
    low, high = tensor.min().item(), tensor.max().item()
    if not (low >= 0 and high <= 1):
        found = f"[{low:.8g}, {high:.8g}]"
        raise SmaltiError(f"float images must lie in [0, 1]; these lie in {found}: divide by 255 or use uint8")
    return tensor


def _check_shape(shape: Sequence[int], axes: tuple[int, ...]) -> None:
    if len(shape) not in axes or 0 in shape:
        kinds = "([B, ]C, H, W) tensors, or (H, W) or ([B, ]H, W, C) arrays, with at least one pixel"
        raise SmaltiError(f"images must be {kinds}, not {tuple(shape)}")


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Float [0, 1] (B, C, H, W) or (C, H, W) as a list of Pillow images to look at.

    Of two bands the first is shown, in grey, of more than three the first three, in colour.
    """
    pixels = to_uint8(images if images.ndim == 4 else images[None]).cpu().numpy()
    shown = pixels[..., :3] if pixels.shape[3] >= 3 else pixels[..., 0]
    return [Image.fromarray(np.ascontiguousarray(image)) for image in shown]
