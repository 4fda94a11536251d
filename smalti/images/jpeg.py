"""JPEG files, decoded no larger than needed: by simplejpeg where it is installed, otherwise by Pillow; the same pixels.

A JPEG can be decoded at a half, a quarter or an eighth of its size for a fraction of the work: the inverse cosine
transform leaves out the high frequencies, which an antialiasing resize would remove as well.
"""

import io

import numpy as np
from PIL import ExifTags, Image

try:
    import simplejpeg
except ImportError:  # Pillow alone: the same pixels, slower
    simplejpeg = None

SCALES = (8, 4, 2)
START = b"\xff\xd8\xff"
SPACES = {1: "GRAY", 3: "RGB"}
PLAIN = {"YCbCr", "Gray", "RGB"}  # colour spaces of a file that both decoders turn into RGB alike


def decode(data: bytes, channels: int, at_least: int, most_pixels: int) -> np.ndarray | None:
    """Decode a plain JPEG as uint8 (H, W, C); None for anything that `read_image` should read in the long way.

    Args:
        data: of the file.
        channels: 1 or 3.
        at_least: both sides of the result have at least so many pixels, if those of the file have.
        most_pixels: of an image that is decoded here.
    """
    if simplejpeg is None or not data.startswith(START) or _turned(data):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(height), int(width)
        if space not in PLAIN or (space == "Gray") != (channels == 1) or height * width > most_pixels:
            return None
        scale = scale_for(height, width, at_least)
        return simplejpeg.decode_jpeg(
            data, SPACES[channels], min_height=-(-height // scale), min_width=-(-width // scale)
        )
    except ValueError:  # damaged: Pillow finds the words for it
        return None


def draft(image: Image.Image, at_least: int) -> None:
    """Tell Pillow to decode a JPEG no larger than needed; without effect on other files."""
    if image.format == "JPEG":
        scale = scale_for(image.height, image.width, at_least)
        image.draft(None, (image.width // scale, image.height // scale))


def scale_for(height: int, width: int, at_least: int) -> int:
    """The largest of 8, 4, 2 and 1 by which both sides can be divided, rounding up, and keep so many pixels."""
    return next((scale for scale in SCALES if -(-min(height, width) // scale) >= at_least), 1)


def _turned(data: bytes) -> bool:
    """Whether the camera was held otherwise than upright."""
    if b"Exif\0\0" not in data[: 1 << 16]:
        return False
    try:
        return Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1) != 1
    except (OSError, ValueError, SyntaxError):
        return True
