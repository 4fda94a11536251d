"""Opens data sets: `--data` as a `Source` of images with their names, labels and captions.

`emoji` (bundled) | a folder of images | a folder of MNIST-style idx files | *.parquet. A source is a list:
images are read lazily. Splits are deterministic: the data set's own where it has them, otherwise by a hash of the
image's name, so that adding images moves no other image to another split.
"""

import csv
import glob
import gzip
import hashlib
import json
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from smalti.data.emoji import read_table, read_tile
from smalti.data.splits import SPLITS, Split
from smalti.errors import SmaltiError
from smalti.images.pixels import recolour_pixels
from smalti.images.reading import SUFFIXES, BadImage, find_images, read_image

HELD_OUT_PERCENT = 5  # of images without a split of their own, for validation and for test each
IDX_VALIDATION = 12  # one in 12 training images of idx files is validation: 5,000 of MNIST's 60,000
FOLDER_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val"), "validation")


@dataclass(frozen=True)
class Source:
    """Images with their names, labels and captions.

    Attributes:
        reader: gives uint8 (H, W, C) for the index of an image of the whole data set, the channels C, and the pixels
            that a reduced image has at least on each side (see `read_image`); thread-safe; raises `BadImage`.
        names: of the images of the whole data set.
        name: of the data, as the user gave it.
        split: which part of the data this is.
        indices: of this part's images in the whole data set.
        channels: of the stored images, 1 (grey) or 3.
        labels: label kind ("group", "subgroup", "class") to one label for each image of the whole data set.
        captions: for each image of the whole data set, language to caption.
    """

    reader: Callable[[int, int, int | None], np.ndarray]
    names: Sequence[str]
    name: str = ""
    split: Split = "all"
    indices: Sequence[int] = ()
    channels: int = 3
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    captions: Sequence[Mapping[str, str]] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, channels: int | None = None, at_least: int | None = None) -> np.ndarray:
        """Image `index` of this part as uint8 (H, W, C); `at_least` as in `read_image`."""
        return self.reader(self.indices[index], channels or self.channels, at_least)

    def name_of(self, index: int) -> str:
        """The name of image `index` of this part."""
        return self.names[self.indices[index]]


def open_data(data: str | Path, split: Split = "all") -> Source:
    """Open the data set that `--data` names.

    Args:
        data: "emoji", a folder (images or idx files), or a parquet file or pattern.
        split: the part to take.

    Raises:
        SmaltiError: no such data, nothing in it, or an empty split.
    """
    if split not in SPLITS:
        raise SmaltiError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    text = str(data)
    if text == "emoji":
        source, splits = _open_emoji()
    elif text.endswith(".parquet"):
        source, splits = _open_parquet(text)
    elif not Path(text).is_dir():
        hint = "a file was given; give its folder" if Path(text).exists() else "no such folder"
        raise SmaltiError(f"{text}: {hint}. Data is 'emoji', a folder of images or of idx files, or *.parquet")
    elif list(Path(text).glob("*idx3-ubyte*")):
        source, splits = _open_idx(Path(text))
    else:
        source, splits = _open_folder(Path(text))
    indices = [index for index, of in enumerate(splits) if split in ("all", of)]
    if not indices:
        counts = ", ".join(f"{name} {splits.count(name)}" for name in SPLITS[:-1])
        raise SmaltiError(f"{text}: no images in the {split} split ({counts}); choose another with --split")
    return replace(source, name=text, split=split, indices=indices)


def _split_by_name(name: str) -> str:
    rank = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 100
    return "test" if rank < HELD_OUT_PERCENT else "validation" if rank < 2 * HELD_OUT_PERCENT else "train"


def assign_splits(names: Sequence[str], given: Sequence[str | None]) -> list[str]:
    """Give every image a split: its own where it has one, otherwise (None) by a hash of its name.

    Where the data has training and test images but no validation images, some training images become validation.
    """
    known, splits = set(given), []
    for name, own in zip(names, given, strict=True):
        by_name = _split_by_name(name)
        if own is None:
            own = by_name
        elif own == "train" and "validation" not in known and by_name == "validation":
            own = "validation"
        splits.append(own)
    return splits


def _open_emoji() -> tuple[Source, list[str]]:
    rows = read_table()["rows"]
    source = Source(
        reader=lambda index, channels, _: recolour_pixels(read_tile(index), channels),
        names=[row["emoji"] for row in rows],
        labels={kind: [row[kind] for row in rows] for kind in ("group", "subgroup")},
        captions=[row["captions"] for row in rows],
    )
    return source, [row["split"] for row in rows]


def _open_folder(folder: Path) -> tuple[Source, list[str]]:
    paths = find_images(folder)
    if not paths:
        raise SmaltiError(f"{folder}: no images in this folder (looked for {', '.join(sorted(SUFFIXES))})")
    names = [path.relative_to(folder).as_posix() for path in paths]
    parts = [name.split("/") for name in names]
    given = [FOLDER_NAMES.get(part[0].lower()) if len(part) > 1 else None for part in parts]
    classes = [part[-2] if len(part) - (own is not None) > 1 else "" for part, own in zip(parts, given, strict=True)]
    captions = _read_captions(folder, names)
    source = Source(
        reader=lambda index, channels, at_least: read_image(paths[index], channels, at_least=at_least),
        names=names,
        labels={"class": classes} if any(classes) else {},
        captions=[{"en": captions[name]} if name in captions else {} for name in names] if captions else (),
    )
    return source, assign_splits(names, given)


def _read_captions(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Captions by file name, from metadata.csv or metadata.jsonl files with `file_name` and `text` columns."""
    captions: dict[str, str] = {}
    for path in [*folder.rglob("metadata.csv"), *folder.rglob("metadata.jsonl")]:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                lines = (json.loads(line) for line in file if line.strip())
                rows = list(csv.DictReader(file) if path.suffix == ".csv" else lines)
            prefix = path.parent.relative_to(folder)
            captions.update({(prefix / row["file_name"]).as_posix(): str(row["text"]) for row in rows if "text" in row})
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise SmaltiError(f"{path}: needs the columns file_name and text ({error})") from error
    return captions


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


def _open_idx(folder: Path) -> tuple[Source, list[str]]:
    parts, labels, names, splits = [], [], [], []
    for path in sorted(folder.glob("*images*idx3-ubyte*")):
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
        splits.extend(["test"] * len(images) if stem in ("t10k", "test") else held_out)
        names.extend(f"{stem}-{index}" for index in range(len(images)))
        parts.append(images)
    if not parts:
        raise SmaltiError(f"{folder}: no idx image files (*images*idx3-ubyte[.gz])")
    if len({images.shape[1:] for images in parts}) > 1:
        raise SmaltiError(f"{folder}: idx files of several image sizes, {[images.shape for images in parts]}")
    pixels = np.concatenate(parts)
    source = Source(
        reader=lambda index, channels, _: recolour_pixels(pixels[index][:, :, None], channels),
        names=names,
        channels=1,
        labels={"class": labels} if len(labels) == len(names) else {},
    )
    return source, splits


class _Parquet:
    """Random access to the image column through an LRU cache of row groups: memory is bounded for any file size."""

    KEPT = 8

    def __init__(self, paths: Sequence[str], starts: Sequence[tuple[int, int, int]], names: Sequence[str]):
        self.paths, self.starts, self.names = paths, starts, names  # starts: (first row, file, row group)
        self.first = [start[0] for start in starts]
        self.groups: OrderedDict[int, list] = OrderedDict()
        self.lock = threading.Lock()

    def __call__(self, index: int, channels: int, at_least: int | None) -> np.ndarray:
        at = int(np.searchsorted(self.first, index, side="right")) - 1
        with self.lock:
            cell = self._group(at)[index - self.starts[at][0]]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None:
            raise BadImage(f"{self.names[index]}: the image column holds no bytes")
        return read_image(data, channels, self.names[index], at_least)

    def _group(self, at: int) -> list:
        """The cells of a row group."""
        import pyarrow.parquet as parquet

        if at not in self.groups:
            _, file, group = self.starts[at]
            table = parquet.ParquetFile(self.paths[file]).read_row_group(group, columns=["image"])
            self.groups[at] = table["image"].to_pylist()
            while len(self.groups) > self.KEPT:
                self.groups.popitem(last=False)
        self.groups.move_to_end(at)
        return self.groups[at]


def _open_parquet(pattern: str) -> tuple[Source, list[str]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SmaltiError("reading parquet needs pyarrow: pip install 'smalti[data]'") from error
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise SmaltiError(f"{pattern}: no such file")
    names, given, starts, labels, captions = [], [], [], [], []
    for number, path in enumerate(paths):
        try:
            file = parquet.ParquetFile(path)
            columns = file.schema_arrow.names
            if "image" not in columns:
                raise SmaltiError(f"{path}: no column 'image' with {{bytes, path}}; it has {', '.join(columns)}")
            table = file.read(columns=[column for column in ("label", "text") if column in columns])
        except (arrow.ArrowException, OSError) as error:
            raise SmaltiError(f"{path}: cut off or not parquet ({error}); copy it again") from error
        row = len(names)
        for group in range(file.num_row_groups):
            starts.append((row, number, group))
            row += file.metadata.row_group(group).num_rows
        own = next((split for word, split in FOLDER_NAMES.items() if word in Path(path).stem.lower()), None)
        names.extend(f"{Path(path).name}#{index}" for index in range(file.metadata.num_rows))
        given.extend([own] * file.metadata.num_rows)
        labels.extend(map(str, table["label"].to_pylist()) if "label" in columns else [])
        captions.extend([{"en": text} for text in table["text"].to_pylist()] if "text" in columns else [])
    source = Source(
        reader=_Parquet(paths, starts, names),
        names=names,
        labels={"class": labels} if len(labels) == len(names) else {},
        captions=captions if len(captions) == len(names) else (),
    )
    return source, assign_splits(names, given)
