"""What a .smalti file can hold: one table, asked when a file is written and when it is read."""

from typing import NamedTuple

from smalti.errors import SmaltiError
from smalti.images.opening import LARGEST_PX


class Limit(NamedTuple):
    """The most of something, and what it is called."""

    most: int
    what: str


CODEBOOK = Limit(1 << 32, "codes in the codebook")
STRIDE = Limit(1 << 10, "pixels per code")
DEPTH = Limit(1 << 10, "codes at a position")
IN_CHUNK = Limit(1 << 12, "images in a chunk")
IMAGES = Limit(1 << 22, "images in a file")
SIDE = Limit(1 << 20, "pixels along a side of an image")
PIXELS = Limit(LARGEST_PX, "pixels of an image")
NAME_BYTES = Limit(1 << 12, "bytes of an image's name")
PROFILE_BYTES = Limit(1 << 22, "bytes of a colour profile")
TABLE_BYTES = Limit(1 << 26, "bytes of the sizes, names and profiles of all images")
CHUNK_BYTES = Limit(1 << 34, "bytes of a chunk")
PIXELS_IN_CHUNK = 1 << 24  # where a chunk ends, unless a single image has more


def within(value: int, limit: Limit, error: type[SmaltiError] = SmaltiError, *, least: int = 1) -> int:
    """The value, if a file can hold it.

    Args:
        value: to be written, or read.
        limit: what it must not exceed.
        error: raised otherwise.
        least: what it must not be below.
    """
    if not least <= value <= limit.most:
        raise error(f"{value:,} {limit.what} do not fit into a .smalti file, which takes {least} to {limit.most:,}")
    return value
