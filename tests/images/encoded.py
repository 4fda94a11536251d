"""Bytes of image files, some of kinds that Pillow does not write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

RAMP = np.add.outer(np.arange(64), np.arange(64)) / 126  # 127 values from 0 to 1


def encoded(image, kind, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def npy(values):
    np.save(file := io.BytesIO(), values)
    return file.getvalue()


def tiff(values, **options):
    import tifffile

    photometric = "rgb" if values.ndim == 3 and values.shape[2] in (3, 4) else "minisblack"
    contiguous = {"planarconfig": "contig"} if values.ndim == 3 else {}
    tifffile.imwrite(file := io.BytesIO(), values, photometric=photometric, **contiguous, **options)
    return file.getvalue()


def chunk(kind, body, wrong=0):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(values):
    """A PNG of 16 bits a value, with 1 to 4 bands."""
    height, width, bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def levels(values, low, high):
    return np.rint((np.clip(values.astype(np.float64), low, high) - low) / (high - low) * 255).astype(np.uint8)
