"""constriction's range coder, told integer frequencies: bytes that decode anywhere, whatever computed the frequencies.

A stream is the range coder's 32-bit words, little-endian. constriction takes probabilities as floating-point numbers,
gives every symbol at least 1 of 2^24, and shares out the rest in proportion, rounded down. Told f - 1 for each symbol,
where the f add up to 2^24, the proportion is 1, nothing is rounded, and the frequencies are f.
"""

from abc import ABC, abstractmethod
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from smalti.codec.errors import DamagedFile
from smalti.ops.native import Kernels

PRECISION = 24  # frequencies add up to 2^24
TOTAL = 1 << PRECISION
DIGIT = 1 << 12  # the largest alphabet whose symbols are written at once as equally likely
SLACK_BITS = 64  # that a stream may hold beyond its bytes: a decoder goes on with zeros

_STREAM: Any = vars(constriction)["stream"]  # which its type hints leave out
_FAMILY = _STREAM.model.Categorical(perfect=False)


class StreamWriter:
    """Writes symbols by their frequencies."""

    def __init__(self) -> None:
        self._coder: Any = _STREAM.queue.RangeEncoder()

    def bits(self, bits: NDArray[Any], ones: NDArray[Any]) -> None:
        """Write bits (N,), each with its own frequency of a 1, (N,) from 1 to 2^24 - 1."""
        if len(bits):
            self._coder.encode(bits.astype(np.int32), _FAMILY, _pairs(ones))

    def symbols(self, symbols: NDArray[Any], frequencies: NDArray[Any]) -> None:
        """Write symbols (N,) by the same frequencies (K,), each at least 1, that add up to 2^24."""
        if len(symbols) and len(frequencies) > 1:
            self._coder.encode(symbols.astype(np.int32), _model(frequencies))

    def uniform(self, symbols: NDArray[Any], size: int) -> None:
        """Write integers (N,) in [0, size), all equally likely; large ones as two digits: rounding costs less."""
        if size > DIGIT:
            self.uniform(symbols // DIGIT, -(-size // DIGIT))
            self.uniform(symbols % DIGIT, DIGIT)
        elif len(symbols) and size > 1:
            self._coder.encode(symbols.astype(np.int32), _STREAM.model.Uniform(size))

    def number(self, value: int) -> None:
        """Write an integer from 0 up in Elias's gamma code: 2 log2(value + 1) + 1 bits."""
        binary = bin(value + 1)[2:]
        bits = [0] * (len(binary) - 1) + [int(digit) for digit in binary]
        self.bits(np.array(bits), np.full(len(bits), TOTAL // 2))

    def rice(self, value: int, bits: int) -> None:
        """Write an integer from 0 up in Rice's code: value / 2^bits in unary, and `bits` bits."""
        digits = [0] * (value >> bits) + [1] + [value >> place & 1 for place in range(bits - 1, -1, -1)]
        self.bits(np.array(digits), np.full(len(digits), TOTAL // 2))

    def finish(self) -> bytes:
        """The stream."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class BitReader(ABC):
    """Reads bits, and the numbers that are made of them."""

    @abstractmethod
    def bits(self, ones: NDArray[Any]) -> NDArray[np.int64]:
        """Read bits (N,), each with its own frequency of a 1."""

    def rice(self, bits: int, most: int) -> int:
        """Read an integer that `StreamWriter.rice` wrote.

        Raises:
            DamagedFile: it is more than `most`.
        """
        value, half = 0, np.array([TOTAL // 2])
        while not self.bits(half)[0]:
            value += 1
            if value << bits > most:
                raise DamagedFile("a number is larger than it can be")
        for bit in self.bits(np.full(bits, TOTAL // 2)):
            value = 2 * value + int(bit)
        if value > most:
            raise DamagedFile("a number is larger than it can be")
        return value


class StreamReader(BitReader):
    """Reads what a `StreamWriter` wrote, given the same frequencies. A damaged stream gives wrong symbols, not errors.

    Args:
        stream: what `StreamWriter.finish` gave.

    Raises:
        DamagedFile: its length is no multiple of 4.
    """

    def __init__(self, stream: bytes):
        self._coder: Any = _STREAM.queue.RangeDecoder(words_of(stream))

    def bits(self, ones: NDArray[Any]) -> NDArray[np.int64]:
        """Read bits (N,), each with its own frequency of a 1."""
        return self._read(len(ones), _FAMILY, _pairs(ones))

    def symbols(self, count: int, frequencies: NDArray[Any]) -> NDArray[np.int64]:
        """Read `count` symbols by the same frequencies (K,)."""
        if len(frequencies) == 1:
            return np.zeros(count, np.int64)
        return self._read(count, _model(frequencies), count)

    def uniform(self, count: int, size: int) -> NDArray[np.int64]:
        """Read `count` integers in [0, size), all equally likely."""
        if size == 1:
            return np.zeros(count, np.int64)
        if size > DIGIT:
            return self.uniform(count, -(-size // DIGIT)) * DIGIT + self.uniform(count, DIGIT)
        return self._read(count, _STREAM.model.Uniform(size), count)

    def number(self, most: int) -> int:
        """Read an integer that `StreamWriter.number` wrote.

        Raises:
            DamagedFile: it is more than `most`.
        """
        half, length = np.array([TOTAL // 2]), 0
        while not self.bits(half)[0]:
            length += 1
            if length > most.bit_length():
                raise DamagedFile("a number is larger than it can be")
        value = 1
        for bit in self.bits(np.full(length, TOTAL // 2)):
            value = 2 * value + int(bit)
        if value - 1 > most:
            raise DamagedFile("a number is larger than it can be")
        return value - 1

    def _read(self, count: int, *model: Any) -> NDArray[np.int64]:
        if not count:
            return np.zeros(0, np.int64)
        try:
            return self._coder.decode(*model).astype(np.int64)
        except AssertionError as error:  # constriction's "tried to decode from compressed data that is invalid"
            raise DamagedFile("a stream is damaged") from error


class FastBitReader(BitReader):
    """Reads a stream of bits only, natively; its state is open to the kernels.

    Args:
        native: the kernels.
        stream: what `StreamWriter.finish` gave.

    Raises:
        DamagedFile: its length is no multiple of 4.
    """

    def __init__(self, native: Kernels, stream: bytes):
        self.native, self.words = native, words_of(stream)
        first, second, *_ = (*self.words[:2].tolist(), 0, 0)
        self.state = np.array([0, (1 << 64) - 1, first << 32 | second, 2], np.uint64)  # lower, range, point, words read

    def bits(self, ones: NDArray[Any]) -> NDArray[np.int64]:
        """Read bits (N,), each with its own frequency of a 1."""
        bits = np.empty(len(ones), np.int64)
        self.native.read_bits(
            self.words, self.state, np.ascontiguousarray(ones, np.int64), bits, len(ones), len(self.words)
        )
        return bits


def words_of(stream: bytes) -> NDArray[np.uint32]:
    """The range coder's words.

    Raises:
        DamagedFile: the stream's length is no multiple of 4.
    """
    if len(stream) % 4:
        raise DamagedFile(f"a stream of {len(stream)} bytes is not made of 32-bit words")
    return np.frombuffer(stream, "<u4").astype(np.uint32)


def _pairs(ones: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([TOTAL - ones - 1, ones - 1], 1).astype(np.float64)


def _model(frequencies: NDArray[Any]) -> Any:
    return _STREAM.model.Categorical((frequencies - 1).astype(np.float64), perfect=False)


def to_frequencies(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies in proportion to integer weights (K,): each at least 1, together 2^24. One deterministic rule.

    Everyone gets 1 and its share of the rest, rounded down; what rounding leaves goes to the largest weight (the first
    of equals). Weights must be below 2^38.
    """
    rest = TOTAL - len(weights)
    total = int(weights.sum())
    shares = weights * rest // total if total else np.zeros_like(weights)
    shares[int(weights.argmax())] += rest - int(shares.sum())
    return shares + 1
