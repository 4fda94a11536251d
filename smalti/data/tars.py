"""Tar files of images as WebDataset has them: the files of one image stand together and are called alike.

`0001.jpg`, `0001.txt` (its caption), `0001.cls` (its class) and `0001.json` (a record with either) are one image; what
comes before the first dot of a file's name is its key. https://github.com/webdataset/webdataset
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import numpy as np

from smalti.data.layout import split_of_name
from smalti.data.places import Place, is_address, places_of
from smalti.data.source import Source, row_identity
from smalti.data.splits import BY_HASH, Splits, assign_splits, usual_split
from smalti.data.streams import Example, Part, Stream, number_of
from smalti.data.tables import captions_in, kinds_of, numbered
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.folders import shown, storable
from smalti.images.kinds import BY_SUFFIX
from smalti.images.preprocessing import Reading
from smalti.images.reading import read_pixels

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
TEXTS = (".txt", ".caption", ".cls", ".json")
LONGEST_TEXT = 1 << 20  # bytes


def is_tar(text: str) -> bool:
    """Whether a name is one of tar files."""
    return text.lower().endswith(SUFFIXES)


@dataclass
class _Group:
    """The files of one image."""

    key: str
    image: bytes | None = None
    suffix: str = ""
    offset: int = 0
    size: int = 0
    texts: dict[str, bytes] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """The first."""
        beside = next((self.texts[name] for name in (".txt", ".caption") if name in self.texts), None)
        lines = beside.decode(errors="replace").splitlines() if beside is not None else []
        found = [pair for line in lines for pair in captions_in(line)] or captions_in(self._record("text"))
        return next(iter(numbered(found).values()), "")

    @property
    def label(self) -> str:
        """Of the file .cls, or of the record."""
        own = self.texts.get(".cls", b"").decode(errors="replace").strip()
        value = own or self._record("label")
        return "" if value is None else str(value)

    def _record(self, kind: str) -> object:
        try:
            record = json.loads(self.texts.get(".json", b"null"))
        except (ValueError, RecursionError):  # no record, and no reason to leave the image out
            return None
        return record.get(kinds_of(list(record)).get(kind)) if isinstance(record, dict) else None


def _groups(place: Place, start: int = 0, *, with_images: bool = True) -> Iterator[_Group]:
    """The images of a tar file from a number on, each with its files; those before it are passed over unread."""
    plain = place.path.lower().endswith(".tar")
    seen: dict[str, int] = {}
    number, group, current = 0, _Group(""), ""
    try:
        with place.open() as file, tarfile.open(fileobj=file, mode="r:" if plain else "r|*") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # it would keep them all  # pyright: ignore[reportAttributeAccessIssue]
                key, suffix = _key_of(member.name)
                if not member.isfile() or not key:
                    continue
                if key != current:
                    if group.suffix:
                        if number >= start:
                            yield group
                        number += 1
                    current, seen[key] = key, seen.get(key, 0) + 1
                    group = _Group(key if seen[key] == 1 else f"{key}#{seen[key]}")
                _take(tar, member, group, suffix, read=number >= start, with_image=with_images)
            if plain and not _is_end(file, tar.offset):
                raise EOFError("its end is missing")
            if group.suffix and number >= start:
                yield group
    except (tarfile.TarError, EOFError, OSError) as error:
        what = f"{place.path}: cut off or no tar file, after {number} images ({shown(str(error), 80)})"
        raise SmaltiError(f"{what}; copy it again") from error


def _is_end(file: BinaryIO, offset: int) -> bool:
    """Whether a block of zeros stands there; a file that is cut off between two others in it has none."""
    file.seek(offset)
    return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _take(
    tar: tarfile.TarFile, member: tarfile.TarInfo, group: _Group, suffix: str, *, read: bool, with_image: bool
) -> None:
    """Put a file of an image to the others."""
    is_image = not group.suffix and suffix != ".npy" and suffix in BY_SUFFIX and BY_SUFFIX[suffix].is_read
    is_text = suffix in TEXTS and member.size <= LONGEST_TEXT
    if is_image:
        group.suffix, group.offset, group.size = suffix, member.offset_data, member.size
    if read and (is_text or (is_image and with_image)):
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
        if len(data) < member.size:
            raise EOFError("unexpected end of data")
        if is_image:
            group.image = data
        else:
            group.texts[suffix] = data


def _key_of(name: str) -> tuple[str, str]:
    """The key of a file in a tar, and its suffix; no key of what is hidden, as macOS puts beside each file."""
    folder, slash, file = storable(name.removeprefix("./")).rpartition("/")
    if file.startswith("."):
        return "", ""
    stem, dot, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", (dot + suffix).lower()


def _short_names(places: Sequence[Place]) -> list[str]:
    """What files are called in keys: their names, or their paths where names are not enough."""
    names = [place.name for place in places]
    short = names if len(set(names)) == len(names) else [place.path for place in places]
    if len(set(short)) < len(short):
        twice = next(name for name in short if short.count(name) > 1)
        raise SmaltiError(f"{shown(twice)} is named twice; name every file once")
    return [storable(name) for name in short]


def stream_tars(text: str) -> Stream:
    """The images of tar files, here or elsewhere, a part each.

    Raises:
        SmaltiError: no such files.
    """
    places = places_of(text)
    names = _short_names(places)
    of_files = {name: split_of_name(name).split for name in names}
    known = set(of_files.values())

    def examples(place: Place, name: str, start: int) -> Iterator[Example]:
        for group in _groups(place, start):
            key = f"{name}/{group.key}"
            called, data = f"{key}{group.suffix}", group.image or b""
            yield Example(
                key=key,
                read=lambda reading, data=data, called=called: read_pixels(data, reading, called),
                number=number_of(key),
                split=usual_split(key, of_files[name], known),
                label=group.label,
                caption=group.caption,
            )

    parts = [Part(name, partial(examples, place, name)) for place, name in zip(places, names, strict=True)]
    return Stream(text, parts, lambda: ((name, place.stamp) for name, place in zip(names, places, strict=True)))


def open_tars(text: str) -> tuple[Source, Splits]:
    """The images of tar files on this machine for access in any order, and their splits.

    The headers of all files in them are read, not the images.

    Raises:
        SmaltiError: no such file, one elsewhere, or a compressed one.
    """
    if is_address(text) or not text.lower().endswith(".tar"):
        what = "is compressed" if not is_address(text) else "is elsewhere"
        remedy = "unpack it" if not is_address(text) else "copy it here"
        raise SmaltiError(f"{shown(text, 100)} {what} and can only be read in order: {remedy}, or turn it into codes "
                          "with smalti tokenize")  # fmt: skip
    places = places_of(text)
    names, rows, captions, labels, named, reasons, counts = [], [], [], [], [], [], []
    for place, name in zip(places, _short_names(places), strict=True):
        split, before = split_of_name(name).split, len(rows)
        for group in _groups(place, with_images=False):
            names.append(f"{name}/{group.key}")
            rows.append((place.path, group.offset, group.size, group.suffix))
            captions.append({"en": group.caption} if group.caption else {})
            labels.append(group.label)
            named.append(split)
            reasons.append(f"the file {name}" if split else BY_HASH)
        counts.append(len(rows) - before)
    if not names:
        raise SmaltiError(f"{shown(text, 100)}: no images in it; give tar files of images")
    stamps = {place.path: place.stamp for place in places}

    def read(index: int, reading: Reading) -> np.ndarray:
        path, offset, size, suffix = rows[index]
        called = names[index] + suffix
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise BadImage(f"{called}: cut off")
        return read_pixels(data, reading, called)

    source = Source(
        reader=read,
        names=names,
        identity=row_identity([place.path for place in places], counts),
        stamp=lambda index: f"{stamps[rows[index][0]]}@{rows[index][1]}",
        labels={"class": labels} if any(labels) else {},
        captions=captions if any(captions) else (),
    )
    return source, assign_splits(names, named, reasons)
