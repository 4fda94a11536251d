"""Parquet files with a column of images."""

import glob
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smalti.data.layout import split_of_name
from smalti.data.source import Source, file_identity, row_identity, row_stamp
from smalti.data.splits import RANKS, Splits, assign_splits, split_of_value
from smalti.data.tables import captions_in, kinds_of, numbered, split_column
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.folders import ImageFile, LeftOut, each_once, shown
from smalti.images.preprocessing import Reading
from smalti.images.reading import read_pixels

IMAGES = ("image", "img", "jpg", "png")  # names of columns of images; the first counts


class _Parquet:
    """Random access to the image column through an LRU cache of row groups: memory is bounded for any file size."""

    KEPT = 8

    def __init__(self, paths: Sequence[str], starts: Sequence[tuple[int, int, int]], names: Sequence[str],
                 columns: Sequence[str]):  # fmt: skip
        self.paths, self.starts, self.names = paths, starts, names  # starts: (first row, file, row group)
        self.columns = columns
        self.first = [start[0] for start in starts]
        self.groups: OrderedDict[int, list] = OrderedDict()
        self.lock = threading.Lock()

    def __call__(self, index: int, reading: Reading) -> np.ndarray:
        at = int(np.searchsorted(self.first, index, side="right")) - 1
        with self.lock:
            cell = self._group(at)[index - self.starts[at][0]]
        return read_pixels(image_bytes(cell, self.names[index]), reading, self.names[index])

    def _group(self, at: int) -> list:
        """The cells of a row group."""
        if at not in self.groups:
            _, file, group = self.starts[at]
            column = self.columns[file]
            table = opened(self.paths[file]).read_row_group(group, columns=[column])
            self.groups[at] = table[column].to_pylist()
            while len(self.groups) > self.KEPT:
                self.groups.popitem(last=False)
        self.groups.move_to_end(at)
        return self.groups[at]


def open_parquet(pattern: str) -> tuple[Source, Splits]:
    """The images of parquet files, and their splits.

    Raises:
        SmaltiError: no such file, a damaged one, no column of images, or pyarrow is missing.
    """
    paths, called, short, twins = files_of(pattern)
    names, named, reasons, starts, labels, captions, counts, of_images, notes = [], [], [], [], [], [], [], [], []
    for number, path in enumerate(paths):
        with damage(path):
            file = opened(path)
            image, of_kind = columns_of(file, path)
            of_images.append(image)
            table = file.read(columns=list(of_kind.values()))
            cells = {kind: table[column].to_pylist() for kind, column in of_kind.items()}
        by = "split"
        if "perhaps" in cells and "split" not in cells:
            by, told = split_column(cells["perhaps"])
            notes += [f"{shown(Path(path).name)}: {own}" for own in told]
        values = enumerate(cells.get(by, [None] * file.metadata.num_rows))
        row = len(names)
        for group in range(file.num_row_groups):
            starts.append((row, number, group))
            row += file.metadata.row_group(group).num_rows
        split, folder, _ = split_of_name(called[number])
        why = f"the {'folder' if folder else 'file'} {folder or Path(path).name}"
        counts.append(file.metadata.num_rows)
        names.extend(f"{short[number]}#{index}" for index in range(counts[-1]))
        own = [split_of_value(value, f"{path}: row {index}") for index, value in values]
        own = [None] * len(own) if split == "test" else own  # what is called test is never trained on
        named.extend(value or split for value in own)
        reasons.extend("the column split" if value else why for value in own)
        labels.extend("" if label is None else str(label) for label in cells.get("label", []))
        captions.extend(numbered(captions_in(cell)) for cell in cells.get("text", []))
    source = Source(
        reader=_Parquet(paths, starts, names, of_images),
        names=names,
        identity=row_identity(paths, counts),
        stamp=row_stamp(paths, counts),
        labels={"class": labels} if len(labels) == len(names) else {},
        captions=captions if len(captions) == len(names) else (),
        left_out=twins,
        notes=notes,
    )
    return source, assign_splits(names, named, reasons)


def opened(file: Any) -> Any:
    """A parquet file of a path or a file object.

    Raises:
        SmaltiError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SmaltiError("reading parquet needs pyarrow: pip install 'smalti[data]'") from error
    return parquet.ParquetFile(file)


@contextmanager
def damage(path: str) -> Iterator[None]:
    """Turn what a library raises at a damaged file into an error of one line."""
    try:
        yield
    except SmaltiError:
        raise
    except Exception as error:  # ArrowException, OSError
        if not isinstance(error, OSError) and not type(error).__module__.startswith("pyarrow"):
            raise
        raise SmaltiError(f"{path}: cut off or not parquet ({error}); copy it again") from error


def columns_of(file: Any, path: str) -> tuple[str, dict[str, str]]:
    """The column of images, and of each kind that is read (label, text, split, perhaps) the column.

    Raises:
        SmaltiError: no column of images.
    """
    columns = file.schema_arrow.names
    image = next((own for own in IMAGES if own in columns), None)
    if image is None:
        told = shown(", ".join(columns), 100)
        raise SmaltiError(f"{path}: no column 'image' with {{bytes, path}}; it has {told}")
    kinds = kinds_of(columns)
    return image, {kind: kinds[kind] for kind in ("label", "text", "split", "perhaps") if kind in kinds}


def image_bytes(cell: Any, name: str) -> bytes:
    """The file in a cell of the column of images.

    Raises:
        BadImage: there is none.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise BadImage(f"{name}: the image column holds no bytes")
    return data


def files_of(pattern: str) -> tuple[list[str], list[str], list[str], list[LeftOut]]:
    """The files of a name or a pattern, each once: paths, names below its folder, short names, and what is left out.

    Raises:
        SmaltiError: there is none.
    """
    paths = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise SmaltiError(f"{shown(pattern, 100)}: no such file; give a parquet file or a pattern, 'DIR/*.parquet'")
    paths, called, twins = _each_once(paths, _called(pattern, paths))
    alone = len({Path(own).name for own in paths}) == len(paths)
    return paths, called, [Path(path).name for path in paths] if alone else called, twins


def _each_once(paths: Sequence[str], called: Sequence[str]) -> tuple[list[str], list[str], list[LeftOut]]:
    """Each real file under the name that counts, as in a folder: that of a test file first; and the other names."""
    try:
        files = [ImageFile(name, path, file_identity(path), Path(path).is_symlink())
                 for name, path in zip(called, paths, strict=True)]  # fmt: skip
    except OSError as error:
        raise SmaltiError(
            f"{error.filename}: cannot be read ({error.strerror}); correct the link or remove it"
        ) from error
    once, twins = each_once(files, lambda file: (RANKS[split_of_name(file.name).split], file.is_linked))
    return [file.path for file in once], [file.name for file in once], twins


def _called(pattern: str, paths: Sequence[str]) -> list[str]:
    """The names of files below the folder that a pattern names, with "/" between the parts."""
    fixed = pattern if len(paths) == 1 and paths[0] == pattern else re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    root = Path(fixed if fixed.endswith(("/", os.sep)) else os.path.dirname(fixed))
    return [Path(path).relative_to(root).as_posix() for path in paths]
