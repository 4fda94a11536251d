"""The bytes of a .smalti file, versions 1 and 2; docs/codec.md describes them one by one.

    magic (4)  version (1)  length of the header (varint)  header  CRC-32 of all that (4)  chunk  chunk  ...

A chunk holds some consecutive images: the stream of their codes, their extras, and a CRC-32 (4) of the sizes,
the codes, the pixels if they are lossless, and all of that. The header says how long every chunk is, so that any image
is found without reading the others. Integers are little-endian; a varint has seven bits a byte, the lowest first.

Nothing is allocated on a file's word alone: counts are checked against what the file can hold, sizes against limits,
which are the same for writing (`limits`).
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, NamedTuple, TypeVar

import numpy as np

from smalti.codec.errors import DamagedFile
from smalti.codec.limits import (
    CHUNK_BYTES,
    CODEBOOK,
    DEPTH,
    IMAGES,
    IN_CHUNK,
    NAME_BYTES,
    PIXELS,
    PIXELS_IN_CHUNK,
    SIDE,
    STRIDE,
    TABLE_BYTES,
    within,
)
from smalti.codec.tables import MODES, ImageTable, chunks_of, pack_profiles, unpack_profiles
from smalti.codec.varints import Reader, TableReader, inflate, sized, varint
from smalti.errors import SmaltiError

MAGIC = b"\x89SMT"
HASH_BYTES = 6
CODERS = ("fixed", "histogram", "adaptive", "prior")  # by their number in a file; never reordered
CRC = struct.Struct("<I")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Header:
    """All of a file but its chunks."""

    coder: str  # of CODERS
    lossless: bool  # chunks restore every pixel
    codebook_size: int
    stride: int  # pixels per code
    depth: int  # codes at a position
    model_hash: str  # the first 12 digits of the autoencoder's
    prior_hash: str  # of the prior's, with the coder "prior"; otherwise empty
    images_per_chunk: int  # at most
    images: ImageTable
    chunk_bytes: tuple[int, ...]  # the length of every chunk
    chunk_coders: tuple[str, ...] = ()  # the coder of every chunk; empty, if all have the file's

    NAMED, LOSSLESS, SAME_SIZE, DEFLATED, PROFILED, OWN_CODERS = 1, 2, 4, 8, 16, 32  # bits of the flags
    FLAGS: ClassVar = {1: 15, 2: 63}  # that a version may have; a file has the lowest version that has its own

    def coder_of(self, chunk: int) -> str:
        """The coder of a chunk's codes."""
        return self.chunk_coders[chunk] if self.chunk_coders else self.coder

    def check(self, error: type[SmaltiError] = SmaltiError) -> None:
        """Raise unless a file can hold all that it says, but for the images."""
        within(self.codebook_size, CODEBOOK, error)
        within(self.stride, STRIDE, error)
        within(self.depth, DEPTH, error)
        within(self.images_per_chunk, IN_CHUNK, error)
        within(len(self.images), IMAGES, error)
        within(max(self.chunk_bytes, default=0), CHUNK_BYTES, error, least=0)

    def pack(self) -> bytes:
        """The file up to its first chunk.

        Raises:
            SmaltiError: what no file can hold.
        """
        self.check()
        same = len(self.images.kinds()) == 1
        named = any(entry.name for entry in self.images)
        table = b"".join(entry.pack() for entry in self.images[: 1 if same else None]) + varint(*self.chunk_bytes)
        table += bytes(CODERS.index(coder) for coder in self.chunk_coders)
        if named:
            table += b"".join(sized(entry.name.encode()) for entry in self.images)
        if profiled := any(entry.profile for entry in self.images):
            table += pack_profiles([entry.profile for entry in self.images])
        within(len(table), TABLE_BYTES)
        deflated = varint(len(table)) + zlib.compress(table, 9)
        smaller = len(deflated) < len(table)
        flags = self.NAMED * named | self.LOSSLESS * self.lossless | self.SAME_SIZE * same | self.DEFLATED * smaller
        flags |= self.PROFILED * profiled | self.OWN_CODERS * bool(self.chunk_coders)
        body = bytes([flags, CODERS.index(self.coder)]) + bytes.fromhex(self.model_hash + self.prior_hash)
        body += varint(self.codebook_size - 1, self.stride, self.depth, self.images_per_chunk, len(self.images))
        version = min(version for version, known in self.FLAGS.items() if not flags & ~known)
        return self._framed(version, body + (deflated if smaller else table))

    @staticmethod
    def _framed(version: int, body: bytes) -> bytes:
        start = MAGIC + bytes([version]) + sized(body)
        return start + CRC.pack(zlib.crc32(start))

    @classmethod
    def read(cls, file: BinaryIO, chunks_bytes: int | None = None) -> "Header":
        """The header of a file, which is left where its first chunk begins.

        Args:
            file: opened for reading in binary.
            chunks_bytes: how many bytes all chunks have at most, if that is known; what cannot be in them is refused.

        Raises:
            DamagedFile: not such a file, of another version, cut off, changed, or with sizes that cannot be.
        """
        magic, reader = file.read(len(MAGIC)), Reader(file)
        if magic != MAGIC:
            what = f"a file that begins with {magic!r}" if magic else "an empty file"
            raise DamagedFile(f"not a .smalti file but {what}")
        version = reader.take(1)[0]
        if version not in cls.FLAGS:
            known = " and ".join(map(str, cls.FLAGS))
            raise DamagedFile(f"a .smalti file of version {version}; this smalti reads versions {known}: update it")
        body = reader.sized(TABLE_BYTES.most)
        if not cls._framed(version, body).endswith(reader.take(CRC.size)):
            raise DamagedFile("the header is damaged: its checksum does not fit")
        return cls._unpack(version, body, chunks_bytes)

    @classmethod
    def _unpack(cls, version: int, body: bytes, chunks_bytes: int | None) -> "Header":
        reader = Reader(io.BytesIO(body))
        flags, coder = reader.take(2)
        if flags & ~cls.FLAGS[version]:
            raise DamagedFile(
                f"version {version} has no flags {flags & ~cls.FLAGS[version]}; by a newer smalti? update it"
            )
        if coder >= len(CODERS):
            raise DamagedFile(f"no coder has the number {coder}")
        model_hash = reader.take(HASH_BYTES).hex()
        prior_hash = reader.take(HASH_BYTES).hex() if CODERS[coder] == "prior" else ""
        size = reader.number(CODEBOOK.most - 1) + 1
        stride, depth = reader.number(STRIDE.most), reader.number(DEPTH.most)
        per_chunk, count = reader.number(IN_CHUNK.most), reader.number(IMAGES.most)
        if not (stride and depth and per_chunk and count):
            raise DamagedFile("a stride, a depth, a chunk or the number of images is 0")
        most_chunks = None if chunks_bytes is None else chunks_bytes // CRC.size
        if most_chunks is not None and count > per_chunk * most_chunks:
            raise DamagedFile(f"cut off: {count} images take more than {most_chunks} chunks of {per_chunk}")
        length = reader.number(TABLE_BYTES.most) if flags & cls.DEFLATED else None
        table = TableReader(reader.rest() if length is None else inflate(reader.rest(), length))
        sizes = table.numbers(3 * (1 if flags & cls.SAME_SIZE else count), SIDE.most).reshape(-1, 3)
        pixels = sizes[:, 0] * sizes[:, 1]
        wrong = sizes[(pixels == 0) | (pixels > PIXELS.most)]
        if len(wrong):
            size = f"{wrong[0][1]}x{wrong[0][0]}"
            raise DamagedFile(f"an image of {size} pixels; they have from 1 to {PIXELS.most:,}")
        if int(sizes[:, 2].max()) >= len(MODES):
            raise DamagedFile(f"no kind of image has the number {sizes[:, 2].max()}")
        chunks = chunks_of(ImageTable(count, sizes), per_chunk, most_chunks)
        lengths = table.numbers(len(chunks), CHUNK_BYTES.most)
        coders = table.numbers(len(chunks), len(CODERS) - 1) if flags & cls.OWN_CODERS else np.empty(0, np.int64)
        names = table.names(count, NAME_BYTES.most) if flags & cls.NAMED else None
        profiles = unpack_profiles(table, count) if flags & cls.PROFILED else None
        if table.rest():
            raise DamagedFile("the header is longer than what it says")
        return cls(
            coder=CODERS[coder], lossless=bool(flags & cls.LOSSLESS), codebook_size=size, stride=stride, depth=depth,
            model_hash=model_hash, prior_hash=prior_hash, images_per_chunk=per_chunk,
            images=ImageTable(count, sizes, names, profiles), chunk_bytes=tuple(lengths.tolist()),
            chunk_coders=tuple(CODERS[number] for number in coders.tolist()),
        )  # fmt: skip


class Sections(NamedTuple):
    """A chunk, taken apart."""

    stream: bytes  # of the codes
    alphas: list[bytes]  # PNGs, of the images that have them
    pixels: list[bytes]  # lossless: the streams of shifts and of pixels
    stored: bytes = b""  # the checksum that a file has

    def pack(self, check: int) -> bytes:
        """The chunk; its checksum is that of the contents, `check`, and of all that stands before it."""
        extras = b"".join(map(sized, (*self.alphas, *self.pixels)))
        body = sized(self.stream) + extras if extras else self.stream
        return body + CRC.pack(zlib.crc32(body, check))

    @classmethod
    def unpack(cls, data: bytes, num_alphas: int, *, lossless: bool) -> "Sections":
        """A chunk, taken apart; its checksum is not checked.

        Raises:
            DamagedFile: its parts do not fit into it, or do not fill it.
        """
        if len(data) < CRC.size:
            raise DamagedFile("a chunk is shorter than its checksum")
        body, stored = data[: -CRC.size], data[-CRC.size :]
        count = num_alphas + 2 * lossless
        if not count:
            return cls(body, [], [], stored)
        reader = Reader(io.BytesIO(body))
        stream, *extras = (reader.sized(len(body)) for _ in range(1 + count))
        if reader.rest():
            raise DamagedFile("a chunk is longer than what it says")
        return cls(stream, extras[:num_alphas], extras[num_alphas:], stored)


def cut(images: Iterable[T], num_pixels: Callable[[T], int], images_per_chunk: int) -> Iterator[list[T]]:
    """Images, a chunk at a time: at most so many, and at most about 16 million pixels."""
    members: list[T] = []
    pixels = 0
    for image in images:
        more = num_pixels(image)
        if members and (len(members) == images_per_chunk or pixels + more > PIXELS_IN_CHUNK):
            yield members
            members, pixels = [], 0
        members.append(image)
        pixels += more
    if members:
        yield members


def check_size(height: int, width: int, name: str) -> None:
    """Raise a SmaltiError unless a file can hold an image of this size."""
    most, side = PIXELS.most, SIDE.most
    if not (0 < height * width <= most and max(height, width) <= side):
        raise SmaltiError(f"{name} has {width}x{height} pixels; at most {most:,}, {side:,} a side, fit; scale it down")
