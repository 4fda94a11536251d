"""Rows of a parquet file that may be anybody's: its counts are checked first, values are read as they are used."""

import json
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from smalti.apps.parquetfooter import column_counts
from smalti.configs import fit
from smalti.errors import SmaltiError, one_line, shown

MOST_ABOUT = 1 << 16  # bytes of the JSON under `smalti`
MOST_BYTES = 1 << 28  # of a column that is read whole
MOST_AT_ONCE = 1 << 20  # values
TYPES = {"height": ("int32",), "width": ("int32",), "shape": ("list<element: int32>", "list<item: int32>")}
VALUES = {"codes": ("uint16", "uint32"), "latents": ("float",)}


class ParquetRows:
    """What `write_encoded` put into a parquet file, row for row.

    Args:
        path: of the file; it stays open.

    Attributes:
        about: the JSON under `smalti`.
        names: of the columns.

    Raises:
        SmaltiError: cut off, no parquet, other columns or types, or counts that do not fit together.
    """

    def __init__(self, path: Path):
        parquet = library()
        self.path, self._rows = path, None
        with one_line(path, f"{path} is cut off or not a file of `smalti encode`"):
            limits = {"thrift_string_size_limit": 1 << 24, "thrift_container_size_limit": 1 << 22}
            texts = [field.name for field in parquet.read_schema(path) if str(field.type) == "string"]
            self._file = parquet.ParquetFile(path, read_dictionary=texts, **limits)
            about = (self._file.schema_arrow.metadata or {})[b"smalti"]
            self.about = fit(dict[str, Any], json.loads(about[:MOST_ABOUT]), "smalti")
            self.names = self._file.schema_arrow.names
            if len(set(self.names)) < len(self.names):
                raise SmaltiError("two columns have one name")
            for field in self._file.schema_arrow:
                self._check_type(field.name, str(field.type))
            self._values, self._sizes = column_counts(path)
            if self._file.metadata.num_rows > path.stat().st_size:
                raise SmaltiError(f"{self._file.metadata.num_rows:,} rows are more than its bytes")

    def _check_type(self, name: str, found: str) -> None:
        if name == self.about.get("kind") and name in VALUES:
            fits = "list<" in found and any(f": {own}>" in found for own in VALUES[name])
        else:
            fits = found in TYPES.get(name, ("string", "dictionary<values=string, indices=int32, ordered=0>"))
        if not fits:
            raise SmaltiError(f"the column {shown(name)} is of {shown(found)}")

    def column(self, name: str) -> list[Any]:
        """A column whole: texts, numbers, or lists of a few numbers.

        Raises:
            SmaltiError: there is none of this name, or it has more bytes or values than rows of this kind have.
        """
        if name not in self.names:
            raise SmaltiError(f"the column {name!r} is missing")
        count, size = self._values[name], self._sizes[name]
        if size > MOST_BYTES or count > 8 * self._file.metadata.num_rows:
            raise SmaltiError(f"the column {shown(name)} has {count:,} values in {size:,} bytes")
        found: list[Any] = []
        for chunk in self._file.read(columns=[name])[name].chunks:
            if hasattr(chunk, "dictionary"):  # one text each, however often it occurs
                texts = chunk.dictionary.to_pylist()
                found += [None if index is None else texts[index] for index in chunk.indices.to_pylist()]
            else:
                found += chunk.to_pylist()
        return found

    def reader(self, name: str, shapes: Sequence[tuple[int, ...]]) -> Callable[[int], np.ndarray]:
        """What gives the values of a row, in its shape; quick for one row after the other.

        Raises:
            SmaltiError: the column has other counts than the shapes; at once, or when a row is read.
        """
        if name not in self.names:
            raise SmaltiError(f"the column {name!r} is missing")
        if self._values[name] != sum(map(prod, shapes)) or len(shapes) != self._file.metadata.num_rows:
            raise SmaltiError(f"the column {name!r} has {self._values[name]:,} values, which do not fit the shapes")
        size = max(1, MOST_AT_ONCE // max(map(prod, shapes), default=1))
        batches, batch, first = iter(()), (), 0

        def read(index: int) -> np.ndarray:
            nonlocal batches, batch, first
            with one_line(self.path, f"{self.path} is cut off or not a file of `smalti encode`"):
                if index < first or not len(batch):
                    batches, batch, first = self._file.iter_batches(size, columns=[name]), (), 0
                while index >= first + len(batch):
                    first += len(batch)
                    batch = next(batches).column(0)
                return batch[index - first].values.to_numpy().reshape(shapes[index])

        return read


def library() -> Any:
    """The module that reads parquet."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SmaltiError("parquet needs pyarrow: pip install 'smalti[data]'; or name the file *.npz") from error
    return parquet
