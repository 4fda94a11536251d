"""Arrays of an npz file that may be anybody's: their headers are read and checked first, each array when it is used."""

import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from smalti.errors import one_line, shown

MOST_HEADER = 1024  # characters of an array's header; those of plain arrays have 128
SMALL = 1 << 10  # bytes of an array that is read with its header


class ArrayHeader(NamedTuple):
    """What an npz file says of an array."""

    dtype: np.dtype
    shape: tuple[int, ...]


class NpzArrays:
    """The arrays of an npz file by name; none holds objects, and each fills the place that the archive names for it.

    Args:
        path: of the file; it stays open.

    Raises:
        SmaltiError: the file is cut off or no npz, or holds a name twice or something that is no plain array.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._one_line():
            self._zip = zipfile.ZipFile(path)
            self._members = {member.filename.removesuffix(".npy"): member for member in self._zip.infolist()}
            if len(self._members) < len(self._zip.infolist()):
                raise ValueError("two arrays have one name")
            foreign = (own for own in self._zip.infolist() if not own.filename.endswith(".npy"))
            if (other := next(foreign, None)) is not None:
                raise ValueError(f"{shown(other.filename)} is no array")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def header(self, name: str) -> ArrayHeader:
        """The type and shape of an array, without its values.

        Raises:
            SmaltiError: damaged, with objects, or not of the length that the archive names.
        """
        with self._one_line(name):
            return self._header(name)[0]

    def array(self, name: str, most_bytes: int = SMALL) -> np.ndarray:
        """The values of an array.

        Raises:
            SmaltiError: there is none of this name, it is damaged, or has more bytes.
        """
        with self._one_line(name):
            if name not in self._members:
                raise ValueError("it is missing")
            header, begins = self._header(name)
            if self._members[name].file_size - begins > most_bytes:
                raise ValueError(f"an array of {shown(header.shape)} {header.dtype} where a smaller one was expected")
            with self._zip.open(self._members[name]) as file:
                return np.lib.format.read_array(file, allow_pickle=False, max_header_size=MOST_HEADER)

    def _header(self, name: str) -> tuple[ArrayHeader, int]:
        member = self._members[name]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("a compression that numpy does not write")
        with self._zip.open(member) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("a version of npy that is not 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MOST_HEADER)
            begins = file.tell()
        if dtype.hasobject or any(size < 0 for size in shape):
            raise ValueError("no plain array")
        if begins + prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{shown(shape)} {dtype} are not its {member.file_size:,} bytes")
        return ArrayHeader(dtype, shape), begins

    def _one_line(self, name: str = "") -> AbstractContextManager[None]:
        """For what zipfile, zlib and numpy raise, a dozen classes."""
        which = f": the array {shown(name)}" if name else ""
        return one_line(self.path, f"{self.path} is cut off or not a file of `smalti encode`{which}")
