"""Entropy coders of a chunk's codes: fixed length, histogram (static frequencies, sent first), adaptive (learns as it
goes). `prior_coder` has the fourth, of a trained prior.

These three are integers throughout. Shapes may differ from image to image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from smalti.codec.adaptive import Shape, code_adaptively, least_bits
from smalti.codec.errors import DamagedFile, NotReadBack
from smalti.codec.limits import CODEBOOK
from smalti.codec.streams import TOTAL, Integers, StreamReader, StreamWriter, check_room, to_frequencies
from smalti.errors import SmaltiError

Codes = Integers  # (q, h, w) of one image, q codes at a position
MOST_COUNT = 1 << 28


class Coder(ABC):
    """Codes in [0, codebook_size) to bytes and back.

    Attributes:
        images_per_chunk: that are coded together, unless the user says otherwise.
        by_network: probabilities come from a network, whose rounding may differ between machines.
        least_bits: that a code takes: no stream has more codes than its bits allow.
        most_codes: the largest codebook.

    Raises:
        SmaltiError: a codebook that is too large.
    """

    images_per_chunk: ClassVar[int] = 1024
    by_network: ClassVar[bool] = False
    most_codes: ClassVar[int] = CODEBOOK.most
    least_bits: float = 0

    def __init__(self, codebook_size: int):
        if not 1 <= codebook_size <= self.most_codes:
            raise SmaltiError(
                f"this coder takes codebooks of at most {self.most_codes:,} codes, not {codebook_size:,}"
                + "; the adaptive coder takes it" * (codebook_size <= CODEBOOK.most)
            )
        self.codebook_size = codebook_size

    def encode(self, grids: Sequence[Codes], *, verify: bool = False) -> bytes:
        """The stream of the codes of some images, each (q, h, w).

        Args:
            grids: the codes.
            verify: read them back.

        Raises:
            SmaltiError: codes outside [0, K).
            NotReadBack: what is read is not what was written.
        """
        codes, shapes = np.concatenate([grid.reshape(-1) for grid in grids]), [grid.shape for grid in grids]
        if not (int(codes.min()) >= 0 and int(codes.max()) < self.codebook_size):
            raise SmaltiError(f"codes must lie in [0, {self.codebook_size}), not in [{codes.min()}, {codes.max()}]")
        writer = StreamWriter()
        told = self._write(writer, codes, shapes)
        stream = writer.finish()
        if verify:
            found = np.zeros_like(codes)
            self._read(StreamReader(stream), found, shapes, told)
            if not np.array_equal(found, codes):
                raise NotReadBack(f"{(found != codes).sum()} of {len(codes)} codes are not read as they were written")
        return stream

    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes of images of these shapes; wrong ones, if the stream is damaged: the chunk's checksum finds out.

        Raises:
            DamagedFile: the stream cannot be what `encode` made.
        """
        count = sum(map(math.prod, shapes))
        check_room(count, self.least_bits, len(stream))
        codes = np.zeros(count, np.int64)
        self._read(StreamReader(stream), codes, shapes)
        return split(codes, shapes)

    @abstractmethod
    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> Any:
        """Write the codes (N,) of all images, one after the other; returns what verifying takes."""

    @abstractmethod
    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape], told: Any = None) -> None:
        """Read them into place; `told` is what `_write` returned, to be held against what is read on the way."""


class FixedCoder(Coder):
    """All codes alike, log2 K bits: the uniform prior."""

    def __init__(self, codebook_size: int):
        super().__init__(codebook_size)
        self.least_bits = math.log2(codebook_size)

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        writer.uniform(codes, self.codebook_size)

    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape], told: None = None) -> None:
        codes[:] = reader.uniform(len(codes), self.codebook_size)


class HistogramCoder(Coder):
    """Codes by how often they occur in the chunk: their counts first, then -log2 of its share for each code."""

    most_codes = 1 << 20

    def __init__(self, codebook_size: int):
        super().__init__(codebook_size)
        self.least_bits = -math.log2(1 - (codebook_size - 1) / TOTAL)

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        counts = np.bincount(codes, minlength=self.codebook_size)
        used = np.flatnonzero(counts)
        runs = np.diff(used, prepend=-1, append=self.codebook_size) - 1  # zeros before each code used, and at the end
        for run, count in zip(runs.tolist(), [*counts[used].tolist(), 0], strict=True):
            if run or count:
                writer.number(run)
                writer.number(count)
        writer.symbols(codes, to_frequencies(counts))

    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape], told: None = None) -> None:
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

    def __init__(self, codebook_size: int):
        super().__init__(codebook_size)
        self.least_bits = least_bits(codebook_size)

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> None:
        code_adaptively(writer, codes, shapes, self.codebook_size)

    def _read(self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape], told: None = None) -> None:
        code_adaptively(reader, codes, shapes, self.codebook_size)


def split(codes: Integers, shapes: Sequence[Shape]) -> list[Codes]:
    """The codes (N,) of all images as those of each, (q, h, w)."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(codes, ends[:-1]), shapes, strict=True)]
