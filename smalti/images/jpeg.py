"""Scaled JPEG decoding: by simplejpeg where it is installed, otherwise by Pillow; the same pixels.

A JPEG can be decoded at a half, a quarter or an eighth of its size for a fraction of the work: the inverse DCT omits
the high frequencies, which an antialiasing resize would remove as well.
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
PLAIN = {"YCbCr", "Gray", "RGB"}  # colour spaces that both decoders convert to the same RGB


def decode(data: bytes, channels: int, at_least: int, most_pixels: int) -> np.ndarray | None:
    """Decode a plain JPEG as uint8 (H, W, C); None for anything that `read_image` should decode with Pillow or refuse.

    Both sides keep `at_least` pixels, if the file has as many; an image with more than `most_pixels` is refused.
    """
    if simplejpeg is None or not data.startswith(START) or _turned(data):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(height), int(width)
        if space not in PLAIN or (space == "Gray") != (channels == 1) or height * width > most_pixels:
            return None
        scale = scale_for(height, width, at_least)
        least_height, least_width = -(-height // scale), -(-width // scale)
        return simplejpeg.decode_jpeg(data, SPACES[channels], min_height=least_height, min_width=least_width)
    except ValueError:  # damaged: Pillow gives the error
        return None


def draft(image: Image.Image, at_least: int) -> None:
    """Tell Pillow to decode a JPEG no larger than needed; without effect on other files."""
    if image.format == "JPEG":
        scale = scale_for(image.height, image.width, at_least)
        image.draft(None, (image.width // scale, image.height // scale))


def scale_for(height: int, width: int, at_least: int) -> int:
    """The largest of 8, 4, 2 and 1 by which both sides, divided and rounded up, keep `at_least` pixels."""
    return next((scale for scale in SCALES if -(-min(height, width) // scale) >= at_least), 1)


def _turned(data: bytes) -> bool:
    """Whether EXIF says that the image is rotated."""
    if b"Exif\0\0" not in data[: 1 << 16]:
        return False
    try:
        return Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1) != 1
    except (OSError, ValueError, SyntaxError):
        return True
