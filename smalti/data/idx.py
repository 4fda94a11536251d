"""Folders of MNIST-style idx files."""

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from smalti.data.layout import splits_in
from smalti.data.source import Source, row_identity, row_stamp
from smalti.data.splits import Splits
from smalti.errors import SmaltiError
from smalti.images.folders import counted, shown, walk
from smalti.images.reading import pixels_as

IDX_VALIDATION = 12  # one in 12 training images of idx files is validation: 5,000 of MNIST's 60,000


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes (MNIST's format, plain or gzipped) with any number of axes.

    Raises:
        SmaltiError: not an idx file of unsigned bytes, or cut off.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SmaltiError(f"{path}: cut off or not gzip ({error}); copy it again") from error
    except OSError as error:
        raise SmaltiError(f"{path}: cannot be read ({error.strerror}); copy it again or remove it") from error
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


def idx_files(folder: Path) -> list[Path]:
    """The idx files of images in a folder, by name; of one that is there plain and gzipped the plain one."""
    paths = [path for path in folder.glob("*idx3-ubyte*") if not path.name.startswith(".") and not path.is_dir()]
    paths.sort(key=lambda path: (_split_of_file(path) == "test", path.name))
    found = {path.name: path for path in {path.resolve(): path for path in paths}.values()}  # a link is no other file
    return [path for name, path in sorted(found.items()) if name.removesuffix(".gz") == name or name[:-3] not in found]


def open_idx(folder: Path) -> tuple[Source, Splits]:
    """The images of a folder of idx files, and their splits, by whole words of the files' names.

    Raises:
        SmaltiError: no idx files of images, damaged ones, or several image sizes.
    """
    parts, labels, names, named, usual, reasons = [], [], [], [], [], []
    paths = idx_files(folder)
    splits = [_split_of_file(path) for path in paths]
    for path, split in zip(paths, splits, strict=True):
        images = read_idx(path)
        stem = re.split(r"[-._]?(images|idx3)", path.name)[0]
        beside = folder / path.name.replace("images", "labels").replace("idx3", "idx1")
        if beside.exists():
            own_labels = read_idx(beside)
            if len(own_labels) != len(images):
                raise SmaltiError(f"{beside}: {len(own_labels)} labels for {len(images)} images; copy both files again")
            labels.extend(str(label) for label in own_labels)
        by_file = f"the file {path.name}"
        first_validation = len(images) - (0 if "validation" in splits else len(images) // IDX_VALIDATION)
        held_out = ["train" if index < first_validation else "validation" for index in range(len(images))]
        named.extend([split or "train"] * len(images))
        usual.extend([split] * len(images) if split else held_out)
        why = {"train": by_file, "validation": f"{by_file}, and its place in it"}
        reasons.extend([by_file] * len(images) if split else map(why.__getitem__, held_out))
        names.extend(f"{stem}-{index}" for index in range(len(images)))
        parts.append(images)
    if not parts:
        raise SmaltiError(f"{folder}: no idx image files (*idx3-ubyte[.gz])")
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
        notes=_beside(folder),
    )
    return source, Splits(named, usual, reasons)


def _beside(folder: Path) -> list[str]:
    """That other images are there too, which nobody reads."""
    images = walk(folder).images
    first = [shown(image.name) for image in images[:1]]
    return [f"{counted(len(images), 'image')} beside idx files left out, the first: {name}" for name in first]


def _split_of_file(path: Path) -> str | None:
    """The split that a file's name says: test or validation; training images are those of all others."""
    found = splits_in(path.name)
    return next((split for split in ("test", "validation") if split in found), None)
