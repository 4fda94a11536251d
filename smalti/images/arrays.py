"""Files of one numpy array, *.npy: an image (H, W) or (H, W, C) of any real type."""

import io

import numpy as np

from smalti.images.errors import BadImage

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 4096


def read_npy(data: bytes, name: str, most_pixels: int) -> np.ndarray:
    """The array of a file as (H, W, C); nothing is allocated before the header is compared with the file's length.

    Raises:
        BadImage: another number of axes, no real numbers, too many pixels, or a header that does not fit.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise BadImage(f"{name}: an array file of version {version}; save it again with numpy.save")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, kind = read(file, max_header_size=LONGEST_HEADER)
    if kind.kind not in "buif" or kind.itemsize > 8:
        raise BadImage(f"{name}: values of type {str(kind)[:40]}; images have integers or floats")
    if len(shape) not in (2, 3) or min(shape) < 1 or shape[0] * shape[1] > most_pixels:
        raise BadImage(f"{name}: an array {str(shape)[:60]}; images are (H, W) or (H, W, C)")
    count, start = int(np.prod([int(side) for side in shape], dtype=object)), file.tell()
    if len(data) - start != count * kind.itemsize:
        raise BadImage(f"{name}: holds {len(data) - start:,} bytes where {shape} {kind} are announced; copy it again")
    values = np.frombuffer(data, kind, count, start).reshape(shape, order="F" if by_column else "C")
    values = np.require(values, kind.newbyteorder("="), ["C", "W"])
    return values[:, :, None] if values.ndim == 2 else values
