"""Opens data sets: `--data` as a `Source` of images with their names, labels and captions.

`emoji` (bundled) | a folder of images | a folder of MNIST-style idx files | *.parquet. A source is a list:
images are read lazily. Its splits are deterministic, see `smalti.data.splits`; validation and test images may be data
of their own, see `DataConfig`.
"""

import csv
import glob
import gzip
import json
import os
import struct
import threading
import warnings
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from smalti.data.config import Data, DataConfig
from smalti.data.emoji import read_table, read_tile
from smalti.data.splits import NAMES, SPLITS, Split, Splits, assign_splits, split_of_value
from smalti.errors import SmaltiError
from smalti.images.pixels import recolour_pixels
from smalti.images.reading import SUFFIXES, BadImage, find_images, read_image

IDX_VALIDATION = 12  # one in 12 training images of idx files is validation: 5,000 of MNIST's 60,000


@dataclass(frozen=True)
class Source:
    """Images with their names, labels and captions.

    Attributes:
        reader: gives uint8 (H, W, C) for the index of an image of the whole data set, the channels C, and the pixels
            that a reduced image has at least on each side (see `read_image`); thread-safe; raises `BadImage`.
        names: of the images of the whole data set.
        identity: gives for such an index the file and row that the image is; the same in all data that have it.
        name: of the data, as the user gave it.
        split: which part of the data this is.
        indices: of this part's images in the whole data set.
        channels: of the stored images, 1 (grey) or 3; where validation or test images are data of their own, of the
            others. All are recoloured as they are read.
        labels: label kind ("group", "subgroup", "class") to one label for each image of the whole data set.
        captions: for each image of the whole data set, language to caption.
    """

    reader: Callable[[int, int, int | None], np.ndarray]
    names: Sequence[str]
    identity: Callable[[int], Hashable]
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


def open_data(data: Data, split: Split = "all") -> Source:
    """Open the data set that `--data` names, with those of `--validation` and `--test`.

    Args:
        data: "emoji", a folder (images or idx files), or a parquet file or pattern; or a `DataConfig`.
        split: the part to take; "all" is the union of the others.

    Raises:
        SmaltiError: no such data, nothing in it, or an empty split.
    """
    if split not in SPLITS:
        raise SmaltiError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    config = DataConfig.of(data)
    source, splits = _open_parts(config)
    indices = [index for index, of in enumerate(splits) if of is not None and split in ("all", of)]
    if not indices:
        counts = ", ".join(f"{name} {splits.count(name)}" for name in SPLITS[:-1])
        raise SmaltiError(f"{config}: no images in the {split} split ({counts}); choose another with --split")
    return replace(source, name=str(config), split=split, indices=indices)


def _open(text: str) -> tuple[Source, Splits]:
    """The whole of one data set, and its splits."""
    if text == "emoji":
        return _open_emoji()
    if text.endswith(".parquet"):
        return _open_parquet(text)
    if not Path(text).is_dir():
        hint = "a file was given; give its folder" if Path(text).exists() else "no such folder"
        raise SmaltiError(f"{text}: {hint}. Data is 'emoji', a folder of images or of idx files, or *.parquet")
    return _open_idx(Path(text)) if list(Path(text).glob("*idx3-ubyte*")) else _open_folder(Path(text))


def _open_parts(config: DataConfig) -> tuple[Source, list[str | None]]:
    """The data that a record names, as one, and the split of each image; None is in no split."""
    first, splits = _open(config.data)
    parts, chosen = [first], [splits.beside(config.elsewhere)]
    for split, text in config.elsewhere.items():
        parts.append(_open(text)[0])
        chosen.append([split] * len(parts[-1].names))
    if len(parts) == 1:
        return first, chosen[0]
    _leave_out_twins([config.data, *config.elsewhere.values()], parts, chosen)
    return _concatenated(parts), [split for part in chosen for split in part]


def _leave_out_twins(texts: Sequence[str], parts: Sequence[Source], chosen: Sequence[list[str | None]]) -> None:
    """Take an image that several parts hold out of all but the last: no test image is trained on."""
    holders: dict[Hashable, str] = {}
    for text, part, splits in reversed([*zip(texts, parts, chosen, strict=True)]):
        identities = [part.identity(index) for index in range(len(splits))]
        twins = [index for index, image in enumerate(identities) if splits[index] and image in holders]
        for index in twins:
            splits[index] = None
        others = " and ".join(dict.fromkeys(holders[identities[index]] for index in twins))
        if twins and not any(splits):
            raise SmaltiError(f"{text}: nothing is left, for all of its images are in {others} too; give other data")
        if twins:
            warnings.warn(f"{text}: left out {len(twins)} images that are in {others} too", stacklevel=1)
        holders.update(dict.fromkeys(identities, text))


def _concatenated(parts: Sequence[Source]) -> Source:
    """Several data sets, one after another, as one; of the labels the kinds that all have."""
    starts = [0, *accumulate(len(part.names) for part in parts)]

    def place(index: int) -> tuple[Source, int]:
        number = bisect_right(starts, index) - 1
        return parts[number], index - starts[number]

    def read(index: int, channels: int, at_least: int | None) -> np.ndarray:
        part, inside = place(index)
        return part.reader(inside, channels, at_least)

    def identity(index: int) -> Hashable:
        part, inside = place(index)
        return part.identity(inside)

    kinds = [kind for kind in parts[0].labels if all(kind in part.labels for part in parts)]
    captions = [row for part in parts for row in part.captions or [{}] * len(part.names)]
    return Source(
        reader=read,
        names=[name for part in parts for name in part.names],
        identity=identity,
        channels=parts[0].channels,
        labels={kind: [label for part in parts for label in part.labels[kind]] for kind in kinds},
        captions=captions if any(part.captions for part in parts) else (),
    )


def _file_identity(path: Path | str) -> tuple[int, int]:
    """The same for all paths to one file, as for `os.path.samefile`."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _row_identity(paths: Sequence[Path | str], counts: Sequence[int]) -> Callable[[int], Hashable]:
    """Of rows of files, one after another: the file and the row in it."""
    files, starts = [_file_identity(path) for path in paths], [0, *accumulate(counts)]

    def identity(index: int) -> Hashable:
        file = bisect_right(starts, index) - 1
        return files[file], index - starts[file]

    return identity


def _open_emoji() -> tuple[Source, Splits]:
    rows = read_table()["rows"]
    source = Source(
        reader=lambda index, channels, _: recolour_pixels(read_tile(index), channels),
        names=[row["emoji"] for row in rows],
        identity=lambda index: ("emoji", index),
        labels={kind: [row[kind] for row in rows] for kind in ("group", "subgroup")},
        captions=[row["captions"] for row in rows],
    )
    splits = [row["split"] for row in rows]
    return source, Splits(splits, splits)


def _open_folder(folder: Path) -> tuple[Source, Splits]:
    paths = find_images(folder)
    if not paths:
        raise SmaltiError(f"{folder}: no images in this folder (looked for {', '.join(sorted(SUFFIXES))})")
    names = [path.relative_to(folder).as_posix() for path in paths]
    parts = [name.split("/") for name in names]
    by_folder = [NAMES.get(part[0].lower()) if len(part) > 1 else None for part in parts]
    classes = [part[-2] if len(part) - (of is not None) > 1 else "" for part, of in zip(parts, by_folder, strict=True)]
    captions, splits = _read_metadata(folder)
    source = Source(
        reader=lambda index, channels, at_least: read_image(paths[index], channels, at_least=at_least),
        names=names,
        identity=lambda index: _file_identity(paths[index]),
        labels={"class": classes} if any(classes) else {},
        captions=[{"en": captions[name]} if name in captions else {} for name in names] if captions else (),
    )
    return source, assign_splits(names, [splits.get(name, of) for name, of in zip(names, by_folder, strict=True)])


def _read_metadata(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Captions and splits by file name, from the columns `file_name`, `text` and `split` of metadata.csv and .jsonl."""
    captions: dict[str, str] = {}
    splits: dict[str, str] = {}
    for path in [*folder.rglob("metadata.csv"), *folder.rglob("metadata.jsonl")]:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                lines = (json.loads(line) for line in file if line.strip())
                rows = list(csv.DictReader(file) if path.suffix == ".csv" else lines)
            prefix = path.parent.relative_to(folder)
            for number, row in enumerate(rows, 1):
                if "text" not in row and "split" not in row:
                    continue
                name = (prefix / row["file_name"]).as_posix()
                if "text" in row:
                    captions[name] = str(row["text"])
                if split := split_of_value(row.get("split"), f"{path}: row {number}, {name}"):
                    splits[name] = split
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise SmaltiError(f"{path}: needs the columns file_name and text or split ({error})") from error
    return captions, splits


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


def _open_idx(folder: Path) -> tuple[Source, Splits]:
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
        reader=lambda index, channels, _: recolour_pixels(pixels[index][:, :, None], channels),
        names=names,
        identity=_row_identity(paths, [len(images) for images in parts]),
        channels=1,
        labels={"class": labels} if len(labels) == len(names) else {},
    )
    return source, Splits(named, usual)


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


def _open_parquet(pattern: str) -> tuple[Source, Splits]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SmaltiError("reading parquet needs pyarrow: pip install 'smalti[data]'") from error
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise SmaltiError(f"{pattern}: no such file")
    names, named, starts, labels, captions, counts = [], [], [], [], [], []
    for number, path in enumerate(paths):
        try:
            file = parquet.ParquetFile(path)
            columns = file.schema_arrow.names
            if "image" not in columns:
                raise SmaltiError(f"{path}: no column 'image' with {{bytes, path}}; it has {', '.join(columns)}")
            table = file.read(columns=[column for column in ("label", "text", "split") if column in columns])
        except (arrow.ArrowException, OSError) as error:
            raise SmaltiError(f"{path}: cut off or not parquet ({error}); copy it again") from error
        row = len(names)
        for group in range(file.num_row_groups):
            starts.append((row, number, group))
            row += file.metadata.row_group(group).num_rows
        by_file = next((split for word, split in NAMES.items() if word in Path(path).stem.lower()), None)
        counts.append(file.metadata.num_rows)
        names.extend(f"{Path(path).name}#{index}" for index in range(counts[-1]))
        values = enumerate(table["split"].to_pylist() if "split" in columns else [])
        own = [split_of_value(value, f"{path}: row {index}") or by_file for index, value in values]
        named.extend(own or [by_file] * counts[-1])
        labels.extend(map(str, table["label"].to_pylist()) if "label" in columns else [])
        captions.extend([{"en": text} for text in table["text"].to_pylist()] if "text" in columns else [])
    source = Source(
        reader=_Parquet(paths, starts, names),
        names=names,
        identity=_row_identity(paths, counts),
        labels={"class": labels} if len(labels) == len(names) else {},
        captions=captions if len(captions) == len(names) else (),
    )
    return source, assign_splits(names, named)
