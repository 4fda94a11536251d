"""Data of any size as a stream: parts that are read one after another, an image at a time, in flat memory.

What `open_data` opens is a stream too. Parquet files are streamed row group by row group; tar files, whether here or at
an address, member by member; `hf:NAME` by the library `datasets`. A part can be read from any of its images on, so that
whoever reads it can go on where it was left.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from smalti.data.source import Source, fingerprint_of
from smalti.images.preprocessing import Reading


class Example(NamedTuple):
    """An image of a stream, not yet decoded, and what is said of it."""

    key: str  # no other image of the stream has it
    read: Callable[[Reading], np.ndarray]  # uint8 (H, W, C); raises `BadImage`
    number: int  # always the same for this image
    split: str = ""
    label: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Part:
    """Some images of a stream, in order.

    Attributes:
        name: of the file, or of the data.
        examples: gives the images from a number on.
        num_images: how many there are; None where only reading tells.
    """

    name: str
    examples: Callable[[int], Iterator[Example]]
    num_images: int | None = None


@dataclass(frozen=True)
class Stream:
    """Data in parts.

    Attributes:
        name: as a person gave it.
        parts: one after another.
        stamps: gives a name and a stamp for each image or file, see `fingerprint_of`.
        label_kind: of the labels; empty where there are none.
    """

    name: str
    parts: Sequence[Part]
    stamps: Callable[[], Iterator[tuple[str, str]]]
    label_kind: str = "class"

    @cached_property
    def fingerprint(self) -> str:
        """What tells these images from any others."""
        return fingerprint_of(self.stamps())


def of_split(stream: Stream, split: str) -> Stream:
    """The images of a stream that are in a split; all are read to find them."""

    def examples(part: Part, start: int) -> Iterator[Example]:
        return islice((own for own in part.examples(0) if own.split == split), start, None)

    return replace(stream, parts=[Part(part.name, partial(examples, part)) for part in stream.parts])


def number_of(key: str) -> int:
    """A number for an image that has only a name."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:7])


def stream_of(source: Source) -> Stream:
    """An opened data set as a stream of one part."""
    kind = "class" if "class" in source.labels else next(iter(source.labels), "")
    classes = source.labels.get(kind, ())

    def examples(start: int) -> Iterator[Example]:
        for place in range(start, len(source)):
            index = source.indices[place]
            yield Example(
                key=source.names[index],
                read=lambda reading, place=place: source.read(place, reading),
                number=int(index),
                split=(source.splits[index] or "") if source.splits else "",
                label=classes[index] if classes else "",
                caption=next(iter(source.captions[index].values()), "") if source.captions else "",
            )

    def stamps() -> Iterator[tuple[str, str]]:
        return ((source.names[index], source.stamp(index)) for index in source.indices)

    return Stream(source.name, [Part(source.name, examples, len(source))], stamps, kind)
