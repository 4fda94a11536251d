"""What a file holds, before it is scaled: its colours with all of their bits, and its opacity."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from smalti.errors import SmaltiError
from smalti.images import jpeg
from smalti.images.arrays import MAGIC, read_npy
from smalti.images.mending import mended
from smalti.images.opening import LARGEST_PX, SMALL_PX, open_image, read_bytes
from smalti.images.preprocessing import Size, sides
from smalti.images.tiff import is_tiff, read_tiff
from smalti.images.turning import LYING, orientation, upright

GREY_MODES = {"1", "L", "LA", "La"}
ONE_CLEAR = {"1", "L", "RGB"}  # transparent in pixels of one colour, where at all
OPAQUE = 255
PNM = (b"P2", b"P3", b"P5", b"P6")
SAMPLES, SAMPLE_FORMAT, SIGNED = 277, 339, 2  # TIFF tags: bands, and the type of their values
OTHER_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}  # what they leave out


class Layers(NamedTuple):
    """A file's picture, upright."""

    colour: np.ndarray  # (H, W, C): uint8, or of another type and not yet scaled
    opacity: np.ndarray | None = None  # uint8 (H, W)
    profile: bytes = b""  # ICC


def read_layers(
    file: Path | str | bytes | Image.Image,
    name: str,
    *,
    channels: int | None = None,
    at_least: Size | None = None,
    stated: bool = False,
    look: Callable[[Image.Image], Any] = lambda image: None,
) -> Layers:
    """Read a file, as it is but for palettes and inks, which become colours; to be used inside `bad_images`.

    Args:
        file: a path, the bytes of a file, or a Pillow image.
        name: what to call it in an error.
        channels: where the file has so many bands, they are taken as they are: opacity and inks too.
        at_least: as in `Reading`.
        stated: the scale is stated, so that a maximum in the file (PGM, PPM) is not to be made white.
        look: is called with the opened image before its pixels are read.

    Raises:
        BadImage: of a kind that is not read, or too large.
    """
    if isinstance(file, Image.Image):
        if not (isinstance(file, ImageFile) and file.fp and deep_colour(file)):
            look(open_image(file, name))
            return _layers(file, channels)
        file.fp.seek(0)
        data = bytes(file.fp.read())
    else:
        data = read_bytes(file)
    if data.startswith(MAGIC):
        return Layers(read_npy(data, name, LARGEST_PX))
    maximum = _maximum(data, name) if stated and data.startswith(PNM) else 0
    try:
        layers = _decoded(data, name, channels, at_least, look)
        return layers._replace(colour=_unscaled(layers.colour, maximum)) if maximum else layers
    except (SmaltiError, UserWarning):
        raise
    except Exception as error:
        if (whole := mended(data)) is not None:
            return _decoded(whole, name, channels, at_least, look)
        if is_tiff(data) and "cannot identify" in str(error):
            return Layers(read_tiff(data, name, max(100 * len(data), 4 * SMALL_PX)))
        raise


def _decoded(
    data: bytes, name: str, channels: int | None, at_least: Size | None, look: Callable[[Image.Image], Any]
) -> Layers:
    """What Pillow decodes; of 16 bits a colour in two passes, of TIFF files with bands that it leaves out by others."""
    image = open_image(data, name)
    look(image)
    if channels and channels != len(image.getbands()) and channels == _tag(image, SAMPLES):
        return Layers(read_tiff(data, name, max(100 * len(data), 4 * SMALL_PX)))
    if at_least is not None:
        rows, columns = sides(at_least)
        jpeg.draft(image, (columns, rows) if orientation(image) in LYING else (rows, columns))
    if not deep_colour(image):
        return _layers(image, channels)
    return _deep_layers(image, data, name, channels)


def _maximum(data: bytes, name: str) -> int:
    """What a PGM or PPM says is white; 0 where that is the largest value of its type."""
    return _maximum_of(open_image(data, name))


def _maximum_of(image: Image.Image) -> int:
    args = [tile.args for tile in _tiles(image)]
    return args[0][1] if args and args[0] and isinstance(args[0], tuple) and isinstance(args[0][1], int) else 0


def _unscaled(colour: np.ndarray, maximum: int) -> np.ndarray:
    """The values of a file before its maximum became 255 or 65535."""
    largest = np.iinfo(colour.dtype).max
    return np.rint(colour * (maximum / largest)).astype(np.uint16)


def _deep_layers(image: Image.Image, data: bytes, name: str, channels: int | None) -> Layers:
    """Colours of 16 bits a band, of which Pillow gives the upper halves; the lower ones are from a second pass."""
    colours, _, form = _raw_mode(image).partition(";")
    if image.format == "PPM" and data.startswith(b"P6"):
        maximum, count = _maximum_of(image), 3 * image.width * image.height
        values = np.frombuffer(data, ">u2", count, _tiles(image)[0].offset).reshape(image.height, image.width, 3)
        values = np.rint(np.minimum(values, maximum) * (65535 / maximum)).astype(np.uint16)
    elif image.mode == "RGBA" and colours == "LA" and form == "16B":  # two bands of two bytes, read as four
        values = np.array(upright(_with_raw_mode(image, "RGBA"))).view(">u2").astype(np.uint16)
    elif image.mode in ("RGB", "RGBA") and colours in ("RGB", "RGBA", "RGBX") and form in OTHER_BYTES:
        second = _with_raw_mode(open_image(data, name), f"{colours};{OTHER_BYTES[form]}")
        high, low = (np.array(upright(part)).astype(np.uint16) for part in (image, second))
        values = 256 * high + low
    else:  # as near as Pillow comes
        layers = _layers(image, channels)
        return layers._replace(colour=layers.colour.astype(np.uint16) * 257)
    return _of_values(image, values, channels)


def _with_raw_mode(image: Image.Image, mode: str) -> Image.Image:
    """A file that is not yet read, to be decoded as values that lie otherwise."""
    vars(image)["tile"] = [
        tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:])) for tile in _tiles(image)
    ]
    return image


def deep_colour(image: Image.Image) -> bool:
    """Whether a file that is not yet read has colours of 16 bits a band, of which Pillow keeps 8."""
    if image.format == "PPM":
        return image.mode == "RGB" and _maximum_of(image) > OPAQUE
    return image.mode not in ("I", "F") and not image.mode.startswith("I;") and ";16" in _raw_mode(image)


def _tiles(image: Image.Image) -> list[Any]:
    """What is still to be decoded."""
    return image.tile if isinstance(image, ImageFile) else []


def _raw_mode(image: Image.Image) -> str:
    """How the values lie in the file, in Pillow's words."""
    tiles = _tiles(image)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple | list) and args else args
    return first if isinstance(first, str) else ""


def _tag(image: Image.Image, number: int) -> Any:
    """A TIFF tag's value, the first of several."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value


def _of_values(image: Image.Image, values: np.ndarray, channels: int | None) -> Layers:
    """Layers of values (H, W, C) of more than 8 bits, which `image` had: opacity from a band, or from one colour."""
    profile, opacity = image.info.get("icc_profile", b""), None
    clear = image.info.get("transparency")
    if values.shape[2] in (2, 4) and channels != values.shape[2]:
        return Layers(values[:, :, :-1], (values[:, :, -1] >> 8).astype(np.uint8), profile)
    if image.format == "PNG" and isinstance(clear, int | tuple) and channels != 4:
        opacity = np.where((values == np.array(clear)).all(-1), 0, OPAQUE).astype(np.uint8)
    return Layers(values, opacity, profile)


def _layers(image: Image.Image, channels: int | None) -> Layers:
    """Layers of a Pillow image."""
    whole = image.mode
    image, source = upright(image), image
    profile = source.info.get("icc_profile", b"")
    if whole in ("I", "F") or whole.startswith("I;"):
        values = np.array(image)
        if source.format == "TIFF" and values.dtype == np.int32 and _tag(source, SAMPLE_FORMAT) != SIGNED:
            values = values.view(np.uint32)
        if source.format == "PPM":  # scaled to 16 bits by the maximum that the file states
            values = values.clip(0, 65535).astype(np.uint16)
        return _of_values(source, values.astype(values.dtype.newbyteorder("="))[:, :, None], channels)
    clear = image.has_transparency_data
    bands = 4 if whole in ("P", "PA") and clear else len(image.getbands()) + (clear and whole in ONE_CLEAR)
    if clear and channels != bands:
        layer = np.array((image.convert("LA") if whole == "La" else image).convert("RGBA"))
        return Layers(layer[:, :, : 1 if whole in GREY_MODES else 3], layer[:, :, 3], profile)
    if clear:
        image = image.convert("LA" if bands == 2 else "RGBA")
    elif whole == "1":
        image = image.convert("L")
    elif whole not in ("L", "RGB") and not (whole in ("CMYK", "RGBX") and channels == 4):
        image = image.convert("RGB")
    array = np.array(image)
    if _tag(source, SAMPLE_FORMAT) == SIGNED:
        array = array.view(np.int8)
    return Layers(array[:, :, None] if array.ndim == 2 else array, None, profile)
