"""The captions of the images of a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from smalti.data.tables import captions_in, decoded, numbered
from smalti.errors import SmaltiError
from smalti.images.folders import shown

SIDECARS = (".txt", ".caption")  # suffixes of files of captions, with the stem of an image
LONGEST_SIDECAR = 1 << 16  # bytes


class Captions(Sequence[Mapping[str, str]]):
    """The captions of each image: of tables, or where these have none the lines of a text file beside it, read late.

    Args:
        folder: of the images.
        tables: what tables say of some images, with the languages.
        beside: the names of text files beside some images.
        length: how many images there are.
    """

    def __init__(
        self, folder: Path, tables: Mapping[int, Sequence[tuple[str, str]]], beside: Mapping[int, str], length: int
    ):
        self.folder, self.length, self.beside = folder, length, beside
        self.tables = {index: numbered(captions) for index, captions in tables.items() if captions}
        self._read: dict[int, Mapping[str, str]] = {}  # not beyond these: a person may write others

    @property
    def any(self) -> bool:
        """Whether there may be any."""
        return bool(self.tables or self.beside)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Mapping[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, str]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, str] | Sequence[Mapping[str, str]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(index)
        place = index % self.length
        if place in self.tables or place not in self.beside:
            return self.tables.get(place, {})
        if place not in self._read:
            self._read[place] = _read_sidecar(self.folder / self.beside[place], self.beside[place])
        return self._read[place]


def _read_sidecar(path: Path, name: str) -> Mapping[str, str]:
    """Each line of a text file is a caption; lines of numbers alone are what detectors are trained on, and are none."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_SIDECAR + 1)
    except OSError as error:
        raise SmaltiError(f"{shown(name)}: cannot be read ({error.strerror})") from error
    if len(data) > LONGEST_SIDECAR:
        raise SmaltiError(f"{shown(name)}: over {LONGEST_SIDECAR:,} bytes of captions beside one image; move it away")
    lines = decoded(data, shown(name)).splitlines()
    return numbered([pair for line in lines if not _is_numbers(line) for pair in captions_in(line)])


def _is_numbers(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()]) > 1
    except ValueError:
        return False
