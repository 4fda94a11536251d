"""Parquet files with a column of images."""

import glob
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smalti.data.source import Source, row_identity, row_stamp
from smalti.data.splits import NAMES, Splits, assign_splits, split_of_value
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.preprocessing import Reading
from smalti.images.reading import read_pixels


class _Parquet:
    """Random access to the image column through an LRU cache of row groups: memory is bounded for any file size."""

    KEPT = 8

    def __init__(self, paths: Sequence[str], starts: Sequence[tuple[int, int, int]], names: Sequence[str]):
        self.paths, self.starts, self.names = paths, starts, names  # starts: (first row, file, row group)
        self.first = [start[0] for start in starts]
        self.groups: OrderedDict[int, list] = OrderedDict()
        self.lock = threading.Lock()

    def __call__(self, index: int, reading: Reading) -> np.ndarray:
        at = int(np.searchsorted(self.first, index, side="right")) - 1
        with self.lock:
            cell = self._group(at)[index - self.starts[at][0]]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None:
            raise BadImage(f"{self.names[index]}: the image column holds no bytes")
        return read_pixels(data, reading, self.names[index])

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


def open_parquet(pattern: str) -> tuple[Source, Splits]:
    """The images of parquet files, and their splits.

    Raises:
        SmaltiError: no such file, a damaged one, no column of images, or pyarrow is missing.
    """
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
        identity=row_identity(paths, counts),
        stamp=row_stamp(paths, counts),
        labels={"class": labels} if len(labels) == len(names) else {},
        captions=captions if len(captions) == len(names) else (),
    )
    return source, assign_splits(names, named)
