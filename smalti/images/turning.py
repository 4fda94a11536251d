"""How a camera was held: the orientation that EXIF or XMP says, and the picture upright."""

from typing import Any

import numpy as np
from PIL import ExifTags, Image

METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the value of the tag
LYING = {5, 6, 7, 8}  # of which height and width change places


def orientation(image: Image.Image) -> int:
    """The tag's value, 1 to 8; 1, as it should be, also where it cannot be read. No other tag is looked at."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # odd metadata say nothing against the pixels
        return 1
    return found if isinstance(found, int) and found in METHODS else 1


def upright(image: Image.Image) -> Image.Image:
    """The image as it is to be looked at; the same where it is so already."""
    image.load()
    method = METHODS.get(orientation(image))
    return image if method is None else image.transpose(method)


def turned(values: np.ndarray, tag: Any) -> np.ndarray:
    """As `upright`, for an array (H, W, C) and the tag's value."""
    if tag not in METHODS:
        return values
    values = values.swapaxes(0, 1) if tag in LYING else values
    down, across = tag in (3, 4, 7, 8), tag in (2, 3, 6, 7)
    return values[:: -1 if down else 1, :: -1 if across else 1]
