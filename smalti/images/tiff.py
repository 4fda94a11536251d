"""TIFF files that Pillow does not read, by the package tifffile: many bands, floats in colour, half and double."""

import io
import math

import numpy as np

from smalti.images.errors import BadImage
from smalti.images.turning import turned

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
AXES = {"YX", "YXS", "SYX"}
ORIENTATION = 274
UNCOMPRESSED = 1


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as a TIFF."""
    return data.startswith(STARTS)


def read_tiff(data: bytes, name: str, most_bytes: int) -> np.ndarray:
    """The first image of a file as (H, W, C), of the file's own type.

    Raises:
        BadImage: not such a file, larger than `most_bytes`, or tifffile is missing.
    """
    try:
        import tifffile
    except ImportError as error:
        raise BadImage(f"{name}: a TIFF of a kind that Pillow does not read; pip install 'smalti[tiff]'") from error
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        shape, kind = page.shape, page.dtype
        if page.axes not in AXES or kind is None or kind.kind not in "buif":
            raise BadImage(f"{name}: a TIFF with the axes {page.axes} of type {kind}; images have rows and columns")
        if math.prod(map(int, shape)) * kind.itemsize > most_bytes:
            raise BadImage(f"{name}: claims {' x '.join(map(str, shape))} values of type {kind}; make it smaller")
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        whole = page.compression == UNCOMPRESSED and sum(page.databytecounts) < page.nbytes
        if (
            whole
            or len(parts) != math.prod(page.chunked)
            or any(not start or not size or start + size > len(data) for start, size in parts)
        ):  # tifffile would take zeros for what is missing
            raise BadImage(f"{name}: cut off or damaged (parts of the picture are missing)")
        values, turn = page.asarray(), page.tags.get(ORIENTATION)
    values = values[:, :, None] if page.axes == "YX" else np.moveaxis(values, 0, 2) if page.axes == "SYX" else values
    values = turned(values, turn.value if turn is not None else 1)
    return np.ascontiguousarray(values, dtype=kind.newbyteorder("="))
