"""The record of an opened data set, and what tells images and files apart."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.images.folders import LeftOut
from smalti.images.preprocessing import Reading

STAMP_BYTES = 32 << 10


class Codes(NamedTuple):
    """The codes of the images of a data set that has no images any more."""

    tokenizer_hash: str
    codebook_size: int
    grid: tuple[int, int]
    read: Callable[[np.ndarray, np.ndarray], None]  # into (N, h, w), of N images of the whole data set, ascending


@dataclass(frozen=True)
class Source:
    """Images with their names, labels and captions.

    Attributes:
        reader: gives uint8 (H, W, C) for the index of an image of the whole data set, as a `Reading` says; thread-safe;
            raises `BadImage`.
        names: of the images of the whole data set.
        identity: gives for such an index the file and row that the image is; the same in all data that have it.
        stamp: gives for such an index a text that is another one when the image's bytes are others, see `file_stamp`.
        name: of the data, as the user gave it.
        split: which part of the data this is.
        indices: of this part's images in the whole data set.
        channels: of the stored images, 1 (grey) or 3; where validation or test images are data of their own, of the
            others. All are recoloured as they are read.
        labels: label kind ("group", "subgroup", "class") to one label for each image of the whole data set.
        captions: for each image of the whole data set, language to caption; further ones are "en-2", "en-3", ...
        splits: of each image of the whole data set; None where it is in none.
        reasons: for each image of the whole data set what decided its split.
        left_out: files of the data that are no images of it, and why.
        notes: what a person may have meant otherwise, a sentence each.
        codes: of the images, where these are code shards and `reader` raises.
    """

    reader: Callable[[int, Reading], np.ndarray]
    names: Sequence[str]
    identity: Callable[[int], Hashable]
    stamp: Callable[[int], str]
    name: str = ""
    split: Split = "all"
    indices: Sequence[int] = ()
    channels: int = 3
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    captions: Sequence[Mapping[str, str]] = ()
    splits: Sequence[str | None] = ()
    reasons: Sequence[str] = ()
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[str] = ()
    codes: Codes | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, reading: Reading | None = None) -> np.ndarray:
        """Image `index` of this part as uint8 (H, W, C); by default with the channels of the stored images."""
        return self.reader(self.indices[index], reading or Reading(self.channels))

    @cached_property
    def fingerprint(self) -> str:
        """What tells this part's images from any others, see `fingerprint_of`."""
        return fingerprint_of((self.names[index], self.stamp(index)) for index in self.indices)

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint or a manifest says of this part's images: "num_images" and "fingerprint"."""
        return {"num_images": len(self), "fingerprint": self.fingerprint}

    def name_of(self, index: int) -> str:
        """The name of image `index` of this part."""
        return self.names[self.indices[index]]


def concatenated(parts: Sequence[Source]) -> Source:
    """Several data sets, one after another, as one; of the labels the kinds that all have."""
    starts = [0, *accumulate(len(part.names) for part in parts)]

    def place(index: int) -> tuple[Source, int]:
        number = bisect_right(starts, index) - 1
        return parts[number], index - starts[number]

    def read(index: int, reading: Reading) -> np.ndarray:
        part, inside = place(index)
        return part.reader(inside, reading)

    def identity(index: int) -> Hashable:
        part, inside = place(index)
        return part.identity(inside)

    def stamp(index: int) -> str:
        part, inside = place(index)
        return part.stamp(inside)

    kinds = [kind for kind in parts[0].labels if all(kind in part.labels for part in parts)]
    captions = [row for part in parts for row in part.captions or [{}] * len(part.names)]
    return Source(
        reader=read,
        names=[name for part in parts for name in part.names],
        identity=identity,
        stamp=stamp,
        channels=parts[0].channels,
        labels={kind: [label for part in parts for label in part.labels[kind]] for kind in kinds},
        captions=captions if any(part.captions for part in parts) else (),
        left_out=[file for part in parts for file in part.left_out],
        notes=[note for part in parts for note in part.notes],
        codes=_concatenated_codes(parts, starts),
    )


def _concatenated_codes(parts: Sequence[Source], starts: Sequence[int]) -> Codes | None:
    """The codes of several data sets as one.

    Raises:
        SmaltiError: some have images and others codes, or codes of several tokenizers or grids.
    """
    codes = [part.codes for part in parts if part.codes is not None]
    if not codes:
        return None
    if len(codes) < len(parts) or len({own[:3] for own in codes}) > 1:
        what = "codes beside images, or codes of several tokenizers"
        raise SmaltiError(f"{what}; give code shards of one tokenizer alone")

    def read(into: np.ndarray, rows: np.ndarray) -> None:
        for own, begin, end in zip(codes, starts, starts[1:], strict=False):
            first, last = np.searchsorted(rows, [begin, end])
            own.read(into[first:last], rows[first:last] - begin)

    return codes[0]._replace(read=read)


def fingerprint_of(images: Iterable[tuple[str, str]]) -> str:
    """The fingerprint of a data set: a SHA-256 of the names and stamps of its images, in order.

    A name is where an image is found in the data, a stamp a text that is another one when its bytes are others.
    Checkpoints, caches of codes, evaluations and manifests hold this one, and refuse data that have another.
    """
    digest = hashlib.sha256()
    for name, stamp in images:
        digest.update(f"{name}\0{stamp}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def file_identity(path: Path | str) -> tuple[int, int]:
    """The same for all paths to one file, as for `os.path.samefile`."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def file_stamp(path: Path | str) -> str:
    """The size of a file and a SHA-256 of its first and last 32 KiB: another one when its bytes are others.

    What differs only in the middle of a large file of the same size is not seen; to see it, all would have to be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(file.read(STAMP_BYTES))
        file.seek(max(file.tell(), size - STAMP_BYTES))
        digest.update(file.read(STAMP_BYTES))
    return f"{size}:{digest.hexdigest()}"


def row_identity(paths: Sequence[Path | str], counts: Sequence[int]) -> Callable[[int], Hashable]:
    """Of rows of files, one after another: the file and the row in it."""
    files, starts = [file_identity(path) for path in paths], [0, *accumulate(counts)]

    def identity(index: int) -> Hashable:
        file = bisect_right(starts, index) - 1
        return files[file], index - starts[file]

    return identity


def row_stamp(paths: Sequence[Path | str], counts: Sequence[int]) -> Callable[[int], str]:
    """Of rows of files, one after another: the stamp of the file and the row in it."""
    starts = [0, *accumulate(counts)]
    of_file = cache(file_stamp)

    def stamp(index: int) -> str:
        file = bisect_right(starts, index) - 1
        return f"{of_file(paths[file])}#{index - starts[file]}"

    return stamp
