"""Numbers, names and compressed data as a .smalti file has them: written, and read without trust."""

import io
import zlib
from array import array
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from smalti.codec.errors import DamagedFile

BLOCK = 1 << 20  # bytes whose numbers are found at once
LONGEST = 5  # bytes of a number of a table


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


class TableReader(Reader):
    """Reads a table in memory; many numbers or names at a time."""

    def __init__(self, table: bytes):
        self._table, self._bytes = table, io.BytesIO(table)
        super().__init__(self._bytes)

    def numbers(self, count: int, most: int) -> NDArray[np.int64]:
        """The next varints (count,), as `number` reads them."""
        if count > len(self._table) - self._bytes.tell():
            raise DamagedFile(f"cut off: {count} numbers were expected, {len(self._table)} bytes are there")
        found, done = np.empty(count, np.int64), 0
        while done < count:
            place = self._bytes.tell()
            block = np.frombuffer(self._table[place : place + BLOCK], np.uint8)
            ends = np.flatnonzero(block < 0x80)[: count - done]
            starts = np.concatenate([[0], ends[:-1] + 1])
            lengths = ends - starts[: len(ends)] + 1
            if not len(ends) or int(lengths.max()) > LONGEST:
                raise DamagedFile("cut off, or a number is longer than it can be")
            block = block[: ends[-1] + 1]
            digits = (block & 0x7F).astype(np.int64) << 7 * (np.arange(len(block)) - starts.repeat(lengths))
            values = np.add.reduceat(digits, starts)
            if int(values.max()) > most or ((block[ends] == 0) & (lengths > 1)).any():
                raise DamagedFile(f"a number is larger than it can be ({values.max()} > {most})")
            found[done : done + len(values)] = values
            self._bytes.seek(len(block), io.SEEK_CUR)
            done += len(values)
        return found

    def names(self, count: int, most: int) -> "Names":
        """The next names, in UTF-8 after their lengths."""
        table, place = self._table, self._bytes.tell()
        starts, ends = array("I"), array("I")
        try:
            for _ in range(count):
                length = table[place]
                place += 1
                if length:
                    if length >= 0x80:
                        self._bytes.seek(place - 1)
                        length, place = self.number(most), self._bytes.tell()
                    if length > most or b"\0" in table[place : place + length]:
                        raise DamagedFile("a name is too long or contains NUL")
                    table[place : place + length].decode()
                starts.append(place)
                place += length
                ends.append(place)
        except UnicodeDecodeError as error:
            raise DamagedFile("a name is not UTF-8") from error
        except IndexError as error:
            raise DamagedFile("cut off in the names of the images") from error
        if place > len(table):
            raise DamagedFile("cut off in the names of the images")
        self._bytes.seek(place)
        return Names(table, starts, ends)


class Names:
    """Names one behind the other, each made when it is asked for."""

    def __init__(self, table: bytes, starts: "array[int]", ends: "array[int]"):
        self._table, self._starts, self._ends = table, starts, ends

    def __getitem__(self, index: int) -> str:
        return self._table[self._starts[index] : self._ends[index]].decode()
