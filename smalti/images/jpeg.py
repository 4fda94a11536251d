"""Scaled JPEG decoding: by simplejpeg where it is installed, otherwise by Pillow; the same pixels.

A JPEG can be decoded at a half, a quarter or an eighth of its size for a fraction of the work: the inverse DCT omits
the high frequencies, which an antialiasing resize would remove as well.
"""

import io

import numpy as np
from PIL import Image

from smalti.images.preprocessing import Size, sides
from smalti.images.turning import orientation

try:
    import simplejpeg
except ImportError:  # Pillow alone: the same pixels, slower
    simplejpeg = None

SCALES = (8, 4, 2)
MARK, SCAN = 0xFF, 0xDA  # before the name of a segment; the name of the one with the picture
START = b"\xff\xd8\xff"
SPACES = {1: "GRAY", 3: "RGB"}
PLAIN = {"YCbCr", "Gray", "RGB"}  # colour spaces that both decoders convert to the same RGB


def decode(data: bytes, channels: int, at_least: Size, most_pixels: int) -> np.ndarray | None:
    """Decode a plain JPEG as uint8 (H, W, C); None for anything that `read_pixels` should decode with Pillow or refuse.

    The sides keep `at_least` pixels, if the file has as many; an image with more than `most_pixels` is refused.
    """
    if simplejpeg is None or channels not in SPACES or not data.startswith(START) or _turned(data):
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


def draft(image: Image.Image, at_least: Size) -> None:
    """Tell Pillow to decode a JPEG no larger than needed; without effect on other files."""
    if image.format == "JPEG":
        scale = scale_for(image.height, image.width, at_least)
        image.draft(None, (image.width // scale, image.height // scale))


def scale_for(height: int, width: int, at_least: Size) -> int:
    """The largest of 8, 4, 2 and 1 by which the sides, divided and rounded up, keep `at_least` pixels."""
    rows, columns = sides(at_least)
    return next((scale for scale in SCALES if -(-height // scale) >= rows and -(-width // scale) >= columns), 1)


def _turned(data: bytes) -> bool:
    """Whether EXIF or XMP says that the image is rotated."""
    head = data[: _start_of_scan(data)]
    if b"Exif\0\0" not in head and b"tiff:Orientation" not in head:
        return False
    try:
        return orientation(Image.open(io.BytesIO(data))) != 1
    except Exception:  # Pillow's errors are many
        return True


def _start_of_scan(data: bytes) -> int:
    """How many bytes stand before the picture itself: segments, each with its length."""
    place = 2
    while place + 4 <= len(data) and data[place] == MARK and data[place + 1] != SCAN:
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return place
