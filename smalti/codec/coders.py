"""Entropy coders of a chunk's codes: fixed length, histogram (static frequencies, sent first), adaptive (learns as it
goes). `prior_coder` has the fourth, of a trained prior.

These three are integers throughout. Shapes may differ from image to image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from smalti.codec.adaptive import decode_adaptive, encode_adaptive
from smalti.codec.errors import DamagedFile
from smalti.codec.streams import SLACK_BITS, StreamReader, StreamWriter, to_frequencies

Codes = NDArray[np.int64]  # (q, h, w) of one image, q codes at a position
Shape = tuple[int, int, int]
MOST_COUNT = 1 << 28


class Coder(ABC):
    """Codes to bytes and back.

    Args:
        codebook_size: K.

    Attributes:
        images_per_chunk: that are coded together, unless the user says otherwise.
        by_network: probabilities come from a network, whose rounding may differ between machines.
    """

    images_per_chunk: ClassVar[int] = 1024
    by_network: ClassVar[bool] = False

    def __init__(self, codebook_size: int):
        self.codebook_size = codebook_size

    @abstractmethod
    def encode(self, grids: Sequence[Codes]) -> bytes:
        """The stream of the codes of some images, each (q, h, w) in [0, K)."""

    @abstractmethod
    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes of images of these shapes.

        A damaged stream gives wrong codes, which the chunk's checksum finds out.

        Raises:
            DamagedFile: the stream cannot be what `encode` made.
        """


class FixedCoder(Coder):
    """All codes alike, log2 K bits: the uniform prior."""

    def encode(self, grids: Sequence[Codes]) -> bytes:
        """log2 K bits a code."""
        writer = StreamWriter()
        writer.uniform(_flat(grids), self.codebook_size)
        return writer.finish()

    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes."""
        count = _count(shapes)
        if count * math.log2(self.codebook_size) > 8 * len(stream) + SLACK_BITS:
            raise DamagedFile(f"{count} codes cannot be in {len(stream)} bytes")
        return _split(StreamReader(stream).uniform(count, self.codebook_size), shapes)


class HistogramCoder(Coder):
    """Codes by how often they occur in the chunk: their counts first, then -log2 of its share for each code."""

    def encode(self, grids: Sequence[Codes]) -> bytes:
        """Counts, then codes."""
        flat = _flat(grids)
        counts = np.bincount(flat, minlength=self.codebook_size)
        writer = StreamWriter()
        for run, count in _runs(counts):
            writer.number(run)
            writer.number(count)
        writer.symbols(flat, to_frequencies(counts))
        return writer.finish()

    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes."""
        reader, counts, place = StreamReader(stream), np.zeros(self.codebook_size, np.int64), 0
        while place < self.codebook_size:
            place += reader.number(self.codebook_size - place)
            count = reader.number(MOST_COUNT)
            if place < self.codebook_size:
                counts[place] = count
                place += 1
        if int(counts.sum()) != _count(shapes):
            raise DamagedFile("a histogram does not add up to the number of codes")
        return _split(reader.symbols(_count(shapes), to_frequencies(counts)), shapes)


class AdaptiveCoder(Coder):
    """Codes by what was seen before in the chunk: an integer context model that learns as it goes, see `adaptive`."""

    def encode(self, grids: Sequence[Codes]) -> bytes:
        """As the model predicts them."""
        return encode_adaptive(_flat(grids), [grid.shape for grid in grids], self.codebook_size)

    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes."""
        return _split(decode_adaptive(stream, shapes, self.codebook_size), shapes)


def _runs(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(zeros before it, count) of every code that occurs, and at last the zeros at the end, if any, with a 0."""
    used = np.flatnonzero(counts)
    before = np.diff(np.concatenate([[-1], used])) - 1
    runs = list(zip(before.tolist(), counts[used].tolist(), strict=True))
    last = len(counts) - 1 - (int(used[-1]) if len(used) else -1)
    return [*runs, (last, 0)] if last else runs


def _flat(grids: Sequence[Codes]) -> NDArray[np.int64]:
    return np.concatenate([grid.reshape(-1) for grid in grids])


def _count(shapes: Sequence[Shape]) -> int:
    return sum(map(math.prod, shapes))


def _split(flat: NDArray[np.int64], shapes: Sequence[Shape]) -> list[Codes]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
