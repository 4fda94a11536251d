"""Entropy coders of a chunk's codes: fixed length, histogram (static frequencies, sent first), adaptive (learns as it
goes). `prior_coder` has the fourth, of a trained prior.

These three are integers throughout. Shapes may differ from image to image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from smalti.codec.adaptive import Shape, code_adaptively
from smalti.codec.errors import DamagedFile
from smalti.codec.streams import SLACK_BITS, Integers, StreamReader, StreamWriter, to_frequencies

Codes = Integers  # (q, h, w) of one image, q codes at a position
MOST_COUNT = 1 << 28


class Coder(ABC):
    """Codes in [0, codebook_size) to bytes and back.

    Attributes:
        images_per_chunk: that are coded together, unless the user says otherwise.
        by_network: probabilities come from a network, whose rounding may differ between machines.
        least_bits: that a code takes: no stream has more codes than its bits allow.
    """

    images_per_chunk: ClassVar[int] = 1024
    by_network: ClassVar[bool] = False
    least_bits: float = 0

    def __init__(self, codebook_size: int):
        self.codebook_size = codebook_size

    def encode(self, grids: Sequence[Codes]) -> bytes:
        """The stream of the codes of some images, each (q, h, w)."""
        writer = StreamWriter()
        self._write(writer, np.concatenate([grid.reshape(-1) for grid in grids]), [grid.shape for grid in grids])
        return writer.finish()

    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes of images of these shapes; wrong ones, if the stream is damaged: the chunk's checksum finds out.

        Raises:
            DamagedFile: the stream cannot be what `encode` made.
        """
        count = sum(map(math.prod, shapes))
        if count * self.least_bits > 8 * len(stream) + SLACK_BITS:
            raise DamagedFile(f"{count} codes cannot be in {len(stream)} bytes")
        codes = np.zeros(count, np.int64)
        self._read(StreamReader(stream), codes, shapes)
        return split(codes, shapes)

    @abstractmethod
    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        """Write the codes (N,) of all images, one after the other."""

    @abstractmethod
    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape]) -> None:
        """Read them into place."""


class FixedCoder(Coder):
    """All codes alike, log2 K bits: the uniform prior."""

    def __init__(self, codebook_size: int):
        super().__init__(codebook_size)
        self.least_bits = math.log2(codebook_size)

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        writer.uniform(codes, self.codebook_size)

    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape]) -> None:
        codes[:] = reader.uniform(len(codes), self.codebook_size)


class HistogramCoder(Coder):
    """Codes by how often they occur in the chunk: their counts first, then -log2 of its share for each code."""

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        counts = np.bincount(codes, minlength=self.codebook_size)
        used = np.flatnonzero(counts)
        runs = np.diff(used, prepend=-1, append=self.codebook_size) - 1  # zeros before each code used, and at the end
        for run, count in zip(runs.tolist(), [*counts[used].tolist(), 0], strict=True):
            if run or count:
                writer.number(run)
                writer.number(count)
        writer.symbols(codes, to_frequencies(counts))

    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape]) -> None:
        counts, place = np.zeros(self.codebook_size, np.int64), 0
        while place < self.codebook_size:
            place += reader.number(self.codebook_size - place)
            count = reader.number(MOST_COUNT)
            if place < self.codebook_size:
                counts[place] = count
                place += 1
        if int(counts.sum()) != len(codes):
            raise DamagedFile("a histogram does not add up to the number of codes")
        codes[:] = reader.symbols(len(codes), to_frequencies(counts))


class AdaptiveCoder(Coder):
    """Codes by what was seen before in the chunk: an integer context model that learns as it goes, see `adaptive`."""

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        code_adaptively(writer, codes, shapes, self.codebook_size)

    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape]) -> None:
        code_adaptively(reader, codes, shapes, self.codebook_size)


def split(codes: Integers, shapes: Sequence[Shape]) -> list[Codes]:
    """The codes (N,) of all images as those of each, (q, h, w)."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(codes, ends[:-1]), shapes, strict=True)]
