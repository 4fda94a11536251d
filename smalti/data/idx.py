"""Folders of MNIST-style idx files."""

import gzip
import struct
from pathlib import Path

import numpy as np

from smalti.data.source import Source, row_identity, row_stamp
from smalti.data.splits import Splits
from smalti.errors import SmaltiError
from smalti.images.reading import pixels_as

IDX_VALIDATION = 12  # one in 12 training images of idx files is validation: 5,000 of MNIST's 60,000


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes (MNIST's format, plain or gzipped) with any number of axes.

    Raises:
        SmaltiError: not an idx file of unsigned bytes, or cut off.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise SmaltiError(f"{path}: cut off or not gzip ({error}); copy it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise SmaltiError(f"{path}: not an idx file of unsigned bytes")
    axes = data[3]
    if len(data) < 4 + 4 * axes:
        raise SmaltiError(f"{path}: cut off in its header; copy it again")
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    found = len(data) - 4 - 4 * axes
    if found != int(np.prod(shape, dtype=np.int64)):
        raise SmaltiError(f"{path}: holds {found:,} bytes where {shape} are announced; copy it again")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def open_idx(folder: Path) -> tuple[Source, Splits]:
    """The images of a folder of idx files, and their splits.

    Raises:
        SmaltiError: no idx files of images, damaged ones, or several image sizes.
    """
    parts, labels, names, named, usual = [], [], [], [], []
    paths = sorted(folder.glob("*images*idx3-ubyte*"))
    for path in paths:
        images = read_idx(path)
        stem = path.name.split("-")[0]
        beside = folder / path.name.replace("images", "labels").replace("idx3", "idx1")
        if beside.exists():
            own_labels = read_idx(beside)
            if len(own_labels) != len(images):
                raise SmaltiError(f"{beside}: {len(own_labels)} labels for {len(images)} images; copy both files again")
            labels.extend(str(label) for label in own_labels)
        first_validation = len(images) - len(images) // IDX_VALIDATION
        held_out = ["train" if index < first_validation else "validation" for index in range(len(images))]
        is_test = stem in ("t10k", "test")
        named.extend(["test" if is_test else None] * len(images))
        usual.extend(["test"] * len(images) if is_test else held_out)
        names.extend(f"{stem}-{index}" for index in range(len(images)))
        parts.append(images)
    if not parts:
        raise SmaltiError(f"{folder}: no idx image files (*images*idx3-ubyte[.gz])")
    if len({images.shape[1:] for images in parts}) > 1:
        raise SmaltiError(f"{folder}: idx files of several image sizes, {[images.shape for images in parts]}")
    pixels = np.concatenate(parts)
    source = Source(
        reader=lambda index, reading: pixels_as(pixels[index][:, :, None], reading, names[index]),
        names=names,
        identity=row_identity(paths, [len(images) for images in parts]),
        stamp=row_stamp(paths, [len(images) for images in parts]),
        channels=1,
        labels={"class": labels} if len(labels) == len(names) else {},
    )
    return source, Splits(named, usual)
