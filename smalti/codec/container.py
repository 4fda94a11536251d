"""The bytes of a .smalti file, version 1; docs/codec.md describes them one by one.

    magic (4)  version (1)  length of the header (varint)  header  CRC-32 of all that (4)  chunk  chunk  ...

A chunk holds some consecutive images: the stream of their codes, their extras, and a CRC-32 (4) of the sizes,
the codes, the pixels if they are lossless, and all of that. The header says how long every chunk is, so that any image
is found without reading the others. Integers are little-endian; a varint has seven bits a byte, the lowest first.

Nothing is allocated on a file's word alone: counts are checked against what the file can hold, sizes against limits.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import BinaryIO, NamedTuple, TypeVar

from smalti.codec.errors import DamagedFile
from smalti.errors import SmaltiError

MAGIC = b"\x89SMT"
VERSION = 1
HASH_BYTES = 6
MOST_PIXELS = 178_956_970  # of an image: Pillow's own limit
MOST_SIDE = 1 << 20
MOST_IMAGES = 1 << 24
MOST_IN_CHUNK = 1 << 12
MOST_CODEBOOK = 1 << 20
MOST_PROFILE = 1 << 22  # bytes of an ICC profile
MOST_TABLE = 1 << 26  # bytes of the table of images
PIXELS_IN_CHUNK = 1 << 24
CODERS = ("fixed", "histogram", "adaptive", "prior")  # by their number in a file; never reordered
MODES = ("RGB", "L", "RGBA", "LA")
CRC = struct.Struct("<I")

T = TypeVar("T")


class ImageEntry(NamedTuple):
    """What a file says of one image."""

    height: int
    width: int
    mode: str  # of MODES
    name: str = ""
    profile: bytes = b""  # ICC

    @property
    def channels(self) -> int:
        """1 if it is grey, or 3."""
        return 1 if self.mode in ("L", "LA") else 3

    @property
    def transparent(self) -> bool:
        """Whether it has an opacity."""
        return self.mode in ("RGBA", "LA")

    @property
    def num_pixels(self) -> int:
        """H * W."""
        return self.height * self.width

    def pack(self) -> bytes:
        """Size and mode, as they stand in the header and enter the chunk's checksum."""
        return varint(self.height, self.width, MODES.index(self.mode))


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
    images: tuple[ImageEntry, ...]
    chunk_bytes: tuple[int, ...]  # the length of every chunk

    NAMED, LOSSLESS, SAME_SIZE, DEFLATED, PROFILED = 1, 2, 4, 8, 16  # bits of the flags

    def pack(self) -> bytes:
        """The file up to its first chunk."""
        same = len({entry[:3] for entry in self.images}) == 1
        named = any(entry.name for entry in self.images)
        table = b"".join(entry.pack() for entry in self.images[: 1 if same else None]) + varint(*self.chunk_bytes)
        if named:
            table += b"".join(sized(entry.name.encode()) for entry in self.images)
        if profiled := any(entry.profile for entry in self.images):
            table += pack_profiles([entry.profile for entry in self.images])
        deflated = varint(len(table)) + zlib.compress(table, 9)
        smaller = len(deflated) < len(table)
        flags = self.NAMED * named | self.LOSSLESS * self.lossless | self.SAME_SIZE * same | self.DEFLATED * smaller
        flags |= self.PROFILED * profiled
        body = bytes([flags, CODERS.index(self.coder)]) + bytes.fromhex(self.model_hash + self.prior_hash)
        body += varint(self.codebook_size - 1, self.stride, self.depth, self.images_per_chunk, len(self.images))
        return self._framed(body + (deflated if smaller else table))

    @staticmethod
    def _framed(body: bytes) -> bytes:
        start = MAGIC + bytes([VERSION]) + sized(body)
        return start + CRC.pack(zlib.crc32(start))

    @classmethod
    def read(cls, file: BinaryIO) -> "Header":
        """The header of a file, which is left where its first chunk begins.

        Raises:
            DamagedFile: not such a file, of another version, cut off, changed, or with sizes that cannot be.
        """
        magic, reader = file.read(len(MAGIC)), Reader(file)
        if magic != MAGIC:
            what = f"a file that begins with {magic!r}" if magic else "an empty file"
            raise DamagedFile(f"not a .smalti file but {what}")
        version = reader.take(1)[0]
        if version != VERSION:
            raise DamagedFile(f"a .smalti file of version {version}; this smalti reads version {VERSION}: update it")
        body = reader.sized(MOST_TABLE)
        if not cls._framed(body).endswith(reader.take(CRC.size)):
            raise DamagedFile("the header is damaged: its checksum does not fit")
        return cls._unpack(body)

    @classmethod
    def _unpack(cls, body: bytes) -> "Header":
        reader = Reader(io.BytesIO(body))
        flags, coder = reader.take(2)
        if flags >= 2 * cls.PROFILED:
            raise DamagedFile("made by a newer smalti: update it")
        if coder >= len(CODERS):
            raise DamagedFile(f"no coder has the number {coder}")
        model_hash = reader.take(HASH_BYTES).hex()
        prior_hash = reader.take(HASH_BYTES).hex() if CODERS[coder] == "prior" else ""
        size = reader.number(MOST_CODEBOOK) + 1
        stride, depth = reader.number(1 << 10), reader.number(1 << 10)
        per_chunk, count = reader.number(MOST_IN_CHUNK), reader.number(MOST_IMAGES)
        if not (stride and depth and per_chunk and count):
            raise DamagedFile("a stride, a depth, a chunk or the number of images is 0")
        length = reader.number(MOST_TABLE) if flags & cls.DEFLATED else None
        table = reader.rest() if length is None else inflate(reader.rest(), length)
        same, reader = bool(flags & cls.SAME_SIZE), Reader(io.BytesIO(table))
        if count > len(table) * (per_chunk if same else 1):  # an image's size, or a chunk's length, is a byte at least
            raise DamagedFile(f"{count} images do not fit into the header")
        entries = [cls._entry(reader)] * count if same else [cls._entry(reader) for _ in range(count)]
        lengths = tuple(reader.number(1 << 34) for _ in chunks_of(entries, per_chunk))
        if flags & cls.NAMED:
            entries = [entry._replace(name=reader.text(1 << 12)) for entry in entries]
        if flags & cls.PROFILED:
            profiles = unpack_profiles(reader, count)
            entries = [entry._replace(profile=own) for entry, own in zip(entries, profiles, strict=True)]
        if reader.rest():
            raise DamagedFile("the header is longer than what it says")
        return cls(
            coder=CODERS[coder], lossless=bool(flags & cls.LOSSLESS), codebook_size=size, stride=stride, depth=depth,
            model_hash=model_hash, prior_hash=prior_hash, images_per_chunk=per_chunk, images=tuple(entries),
            chunk_bytes=lengths,
        )  # fmt: skip

    @staticmethod
    def _entry(reader: "Reader") -> ImageEntry:
        height, width, mode = reader.number(MOST_SIDE), reader.number(MOST_SIDE), reader.number(len(MODES) - 1)
        if not 0 < height * width <= MOST_PIXELS:
            raise DamagedFile(f"an image of {width}x{height} pixels; they have from 1 to {MOST_PIXELS}")
        return ImageEntry(height, width, MODES[mode])


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


def chunks_of(images: Sequence[ImageEntry], images_per_chunk: int) -> list[range]:
    """Which images share a chunk."""
    counts = (len(members) for members in cut(images, lambda entry: entry.num_pixels, images_per_chunk))
    return [range(*ends) for ends in pairwise(accumulate(counts, initial=0))]


def varint(*values: int) -> bytes:
    """Non-negative integers, seven bits a byte, the lowest first."""
    packed = bytearray()
    for value in values:
        while value >= 0x80:
            packed.append(value & 0x7F | 0x80)
            value >>= 7
        packed.append(value)
    return bytes(packed)


def sized(data: bytes) -> bytes:
    """Data after their length."""
    return varint(len(data)) + data


def pack_profiles(profiles: Sequence[bytes]) -> bytes:
    """ICC profiles of images, each different one once: how many there are, all, and which an image has (0: none)."""
    different = [profile for profile in dict.fromkeys(profiles) if profile]
    numbers = {profile: number for number, profile in enumerate([b"", *different])}
    return varint(len(different)) + b"".join(map(sized, different)) + varint(*(numbers[own] for own in profiles))


def unpack_profiles(reader: "Reader", count: int) -> list[bytes]:
    """What `pack_profiles` packed, of `count` images; a DamagedFile, if it cannot be that."""
    choice = [b"", *(reader.sized(MOST_PROFILE) for _ in range(reader.number(count)))]
    return [choice[reader.number(len(choice) - 1)] for _ in range(count)]


def inflate(data: bytes, length: int) -> bytes:
    """zlib's decompression to exactly `length` bytes; a DamagedFile, if they are more, fewer or damaged."""
    engine = zlib.decompressobj()
    try:
        result = engine.decompress(data, length + 1)
    except zlib.error as error:
        raise DamagedFile(f"compressed data are damaged ({error})") from error
    if len(result) != length or not engine.eof or engine.unused_data:
        raise DamagedFile("compressed data have another length than the file says")
    return result


class Reader:
    """Exact reads from a file, from where it stands; a DamagedFile, where it does not hold what is asked for."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        data = self._file.read(count)
        if len(data) < count:
            raise DamagedFile(f"cut off: {count} bytes were expected, {len(data)} are there")
        return data

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self._file.read()

    def sized(self, most: int) -> bytes:
        """The next data that stand after their length, which is at most `most`."""
        return self.take(self.number(most))

    def number(self, most: int) -> int:
        """The next varint, at most `most` and no longer than it need be."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if value > most or (shift > 7 and byte == 0):
                raise DamagedFile(f"a number is larger than it can be ({value} > {most})")
            if byte < 0x80:
                return value

    def text(self, most: int) -> str:
        """The next name, in UTF-8 after its length."""
        try:
            return self.sized(most).decode()
        except UnicodeDecodeError as error:
            raise DamagedFile("a name is not UTF-8") from error


def check_size(height: int, width: int, name: str) -> None:
    """Raise a SmaltiError unless a file can hold an image of this size."""
    if not (0 < height * width <= MOST_PIXELS and max(height, width) <= MOST_SIDE):
        raise SmaltiError(f"{name} has {width}x{height} pixels; at most {MOST_PIXELS} fit; scale it down")
