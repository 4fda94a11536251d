"""Where the files of a data set are: on this machine, or at an address that `fsspec` opens; by name or by pattern."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, BinaryIO

from smalti.data.source import file_stamp
from smalti.errors import SmaltiError
from smalti.images.folders import shown

LONGEST = 100  # characters of a name in an error
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


@dataclass(frozen=True)
class Place:
    """One file.

    Attributes:
        path: as it is opened.
        system: of files, `fsspec`'s; None is this machine.
        about: what the system says of the file, of a file elsewhere.
    """

    path: str
    system: Any = None
    about: str = ""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.replace(os.sep, "/").rpartition("/")[2]

    def open(self) -> BinaryIO:
        """The file, to be read.

        Raises:
            SmaltiError: it cannot be.
        """
        try:
            return open(self.path, "rb") if self.system is None else self.system.open(self.path, "rb")
        except OSError as error:
            raise SmaltiError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    @property
    def stamp(self) -> str:
        """A text that is another one when its bytes are others: see `file_stamp`; elsewhere what the system says."""
        return file_stamp(self.path) if self.system is None else self.about


def is_address(text: str) -> bool:
    """Whether a name is an address, as s3://bucket/images.tar."""
    return "://" in text


def expanded(text: str) -> list[str]:
    """The names that braces stand for: "a-{08..10}.tar" is three, with as many digits as the first has.

    Example:
        >>> expanded("a-{08..10}.tar")
        ['a-08.tar', 'a-09.tar', 'a-10.tar']
        >>> expanded("{a,b}-{0..1}")
        ['a-0', 'a-1', 'b-0', 'b-1']
    """
    parts: list[list[str]] = []
    end = 0
    for found in BRACES.finditer(text):
        parts.append([text[end : found.start()]])
        first, last, listed = found.groups()
        numbers = range(int(first or 0), int(last or 0) + 1)
        parts.append(listed.split(",") if listed else [str(number).zfill(len(first)) for number in numbers])
        end = found.end()
    return ["".join(words) for words in product(*parts, [text[end:]])]


def places_of(text: str) -> list[Place]:
    """The files that a name, braces and wildcards stand for, in order.

    Raises:
        SmaltiError: there is none, or one of those that braces name is missing; or `fsspec` is.
    """
    if os.path.isfile(text):
        return [Place(text)]
    found = [place for name in expanded(text) for place in (_elsewhere(name) if is_address(text) else _here(name))]
    if not found:
        remedy = "give a file, a pattern in quotes as 'DIR/*.tar', or braces as 'DIR/images-{000..099}.tar'"
        raise SmaltiError(f"{shown(text, LONGEST)}: no such file; {remedy}")
    return found


def _here(name: str) -> Iterator[Place]:
    if glob.has_magic(name):
        yield from map(Place, sorted(filter(os.path.isfile, glob.glob(name, recursive=True))))
    elif os.path.isfile(name):
        yield Place(name)
    else:
        raise SmaltiError(f"{shown(name, LONGEST)}: no such file; correct the name, or the numbers in its braces")


def _elsewhere(name: str) -> Iterator[Place]:
    try:
        import fsspec
    except ImportError as error:
        raise SmaltiError(f"{shown(name, LONGEST)}: an address needs fsspec: pip install 'smalti[streams]'") from error
    try:
        system, path = fsspec.core.url_to_fs(name)
        rows = system.glob(path, detail=True) if glob.has_magic(path) else {path: system.info(path)}
    except (OSError, ImportError, ValueError) as error:
        raise SmaltiError(f"{shown(name, LONGEST)}: cannot be read ({shown(str(error), LONGEST)})") from error
    for own in sorted(rows):
        marks = [str(rows[own][key]) for key in ("ETag", "etag", "md5", "md5Hash", "checksum") if rows[own].get(key)]
        yield Place(own, system, ":".join([str(rows[own].get("size")), *marks[:1]]))
