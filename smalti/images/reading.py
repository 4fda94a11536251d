"""Image files of any kind as uint8 (H, W, C), RGB or grey."""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from smalti.errors import SmaltiError
from smalti.images import jpeg
from smalti.images.kinds import kind_of_bytes
from smalti.images.pixels import recolour_images, recolour_pixels, shrink, to_uint8

LARGEST_PX = 200_000_000  # pixels; a file that claims more is taken for a decompression bomb


class BadImage(SmaltiError):
    """An image file that cannot be read; a folder run skips and counts it."""


@dataclass(frozen=True)
class Reading:
    """What becomes of the pixels of a file.

    Attributes:
        channels: C, 3 for RGB, 1 for grey.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as both sides keep this
            many pixels; much faster when the image is resized anyway. None decodes it at full size.
    """

    channels: int = 3
    at_least: int | None = None


def read_image(
    file: Path | str | bytes | Image.Image, channels: int = 3, name: str | None = None, at_least: int | None = None
) -> np.ndarray:
    """Read an image as uint8 (H, W, C), see `read_pixels`; the options are those of `Reading`."""
    return read_pixels(file, Reading(channels, at_least), name)


def read_pixels(file: Path | str | bytes | Image.Image, reading: Reading, name: str | None = None) -> np.ndarray:
    """Read an image as uint8 (H, W, C).

    EXIF rotation is applied, palettes are resolved, transparency is composited on white, 16-bit values are scaled to 8;
    of an animation the first frame.

    Args:
        file: a path, the bytes of a file, or a Pillow image.
        reading: what becomes of its pixels.
        name: what to call it in an error; by default the path.

    Raises:
        BadImage: missing, empty, truncated, no image, or more than 200 million pixels.
    """
    channels, at_least = reading.channels, reading.at_least
    name = name or (str(file) if isinstance(file, Path | str) else "image")
    with bad_images(name):
        if at_least is not None and not isinstance(file, Image.Image):
            file = _read(file)
            quick = jpeg.decode(file, channels, at_least, LARGEST_PX)
            if quick is not None:
                return quick
        image = open_image(file, name)
        if at_least is not None:
            jpeg.draft(image, at_least)
        return _to_array(image, channels)


@contextmanager
def bad_images(name: str) -> Iterator[None]:
    """Turn any error in reading an image of this name into a `BadImage`."""
    try:
        yield
    except SmaltiError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"{name}: claims far too many pixels (a decompression bomb?); make it smaller") from error
    except FileNotFoundError as error:
        raise BadImage(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"{name}: not an image, or of a kind that Pillow does not read") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError) as error:
        raise BadImage(f"{name}: cut off or damaged ({error})") from error


def open_image(file: Path | str | bytes | Image.Image, name: str) -> Image.Image:
    """A Pillow image, its pixels not yet read; to be used inside `bad_images`."""
    if not isinstance(file, Image.Image):
        file = _read(file)
        if (kind := kind_of_bytes(file)) and not kind.is_read:
            raise BadImage(f"{name}: {kind.name}, which smalti does not read; {kind.remedy}")
    image = file if isinstance(file, Image.Image) else Image.open(io.BytesIO(file))
    if image.width * image.height > LARGEST_PX:
        raise BadImage(f"{name}: {image.width}x{image.height} is over {LARGEST_PX:,} pixels; make it smaller")
    return image


def _read(file: Path | str | bytes) -> bytes:
    if not isinstance(file, bytes):
        path = Path(file)
        if path.is_dir():
            raise BadImage(f"{path}: a folder where an image was expected")
        file = path.read_bytes()
    if not file:
        raise OSError("0 bytes")
    return file


def _to_array(image: Image.Image, channels: int) -> np.ndarray:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image, dtype=np.float64)
        largest = values.max(initial=0)
        top = 65535.0 if largest > 255 or image.mode != "F" else 255.0 if largest > 1 else 1.0
        image = Image.fromarray(np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    array = np.array(image)
    return recolour_pixels(array[:, :, None] if array.ndim == 2 else array, channels)


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """The centre square of uint8 (H, W, C), resized to (size, size, C)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return shrink(square[None], (size, size))[0].numpy()


Images = Any  # one or a list of: path, Pillow image, uint8 (H, W[, C]) array, float [0, 1] ([B, ]C, H, W) tensor


def to_images(values: Images, channels: int) -> list[torch.Tensor]:
    """Convert images of any supported type to a list of float [0, 1] tensors (C, H, W).

    Args:
        values: one of, or a list of: a path; a Pillow image; a numpy array, uint8 or float [0, 1], (H, W) or (H, W, C)
            or (B, H, W, C); a tensor, float [0, 1] or uint8, (C, H, W) or (B, C, H, W).
        channels: C, 1 or 3; grey is made into colour and colour into grey where needed.

    Raises:
        SmaltiError: another type, another number of axes or channels, or float values outside [0, 1].
    """
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return [image for value in values for image in to_images(value, channels)]
    if isinstance(values, str | Path | bytes | Image.Image):
        values = read_image(values, channels)
    if isinstance(values, np.ndarray):
        values = np.require(values[:, :, None] if values.ndim == 2 else values, requirements=["C", "W"])
        tensor = torch.from_numpy(values).movedim(-1, -3)
    elif isinstance(values, torch.Tensor):
        tensor = values
    else:
        kinds = "give a path, Pillow image, array or tensor"
        raise SmaltiError(f"cannot read an image from {type(values).__name__}: {kinds}")
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in (1, 3):
        kinds = "([B, ]C, H, W) tensors or ([B, ]H, W, C) arrays with C 1 or 3"
        raise SmaltiError(f"images must be {kinds}, not {tuple(values.shape)}")
    if tensor.dtype == torch.uint8:
        if tensor.shape[-3] != channels:
            tensor = torch.from_numpy(recolour_pixels(tensor.movedim(-3, -1).cpu().numpy(), channels)).movedim(-1, -3)
        tensor = tensor.float() / 255
    tensor = tensor.float()
    low, high = (tensor.min().item(), tensor.max().item()) if tensor.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        found = f"[{low:.3g}, {high:.3g}]"
        raise SmaltiError(f"float images must lie in [0, 1]; these lie in {found}: divide by 255 or use uint8")
    tensor = recolour_images(tensor, channels)
    return list(tensor) if tensor.ndim == 4 else [tensor]


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Float [0, 1] (B, C, H, W) or (C, H, W) as a list of Pillow images."""
    pixels = to_uint8(images if images.ndim == 4 else images[None]).cpu().numpy()
    return [Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image) for image in pixels]
