"""Where a verb writes: under names that are safe to store and to show, none twice, and over no file without --force."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from smalti.errors import SmaltiError

LONGEST_BYTES = 200  # of a stem; file systems take names of 255 bytes
UNNAMED = "image"


def new_file(path: str | Path, force: bool, *suffixes: str) -> Path:
    """The place of one file.

    Raises:
        SmaltiError: a file is there and `force` is not given, it is a folder, or its name ends otherwise.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise SmaltiError(f"--out must end in {' or '.join(suffixes)}, not {str(path)!r}")
    if path.is_dir():
        raise SmaltiError(f"{path} is a folder; --out is a file here")
    if path.exists() and not force:
        raise SmaltiError(f"{path} exists; --force overwrites it")
    return path


def new_files(folder: str | Path, names: Iterable[str], suffix: str, force: bool) -> list[Path]:
    """A place in a folder for each name: its stem, cleaned, or where that is taken stem-2, stem-3, ...

    Raises:
        SmaltiError: a file is there and `force` is not given.
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        raise SmaltiError(f"{folder} is a file; --out is a folder here")
    taken = Names()
    return [new_file(Path(folder) / taken.new(f"{clean_stem(name)}{suffix}"), force) for name in names]


class Names:
    """Gives out names of files, none twice, also where a file system takes A and a for the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()  # so that a thousand equal names take no million looks

    def new(self, name: str) -> str:
        """The name itself, or stem-2, stem-3, ... where it is taken."""
        path, own = Path(name), _folded(name)
        candidate = name
        while _folded(candidate) in self._taken:
            self._counts[own] += 1
            candidate = f"{path.stem}-{self._counts[own] + 1}{path.suffix}"
        self._taken.add(_folded(candidate))
        return candidate


def clean_stem(name: str) -> str:
    """The stem of a name out of a stranger's file, as a name here: no folders, no control characters, not too long."""
    stem = Path(name.replace("\\", "/")).stem
    stem = "".join("_" if unicodedata.category(character)[0] == "C" else character for character in stem)
    stem = stem.encode(errors="replace")[:LONGEST_BYTES].decode(errors="ignore")
    return stem if stem.strip(". ") else UNNAMED


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
