"""The range coder: symbols to bytes and back by integer frequencies, exactly, whatever said the frequencies.

A stream is the 32-bit words, little-endian, of constriction's range coder. `ops/kernels/codes.h` has the same coder,
byte for byte, whose state the context model and the prior's decisions share; constriction serves where there was no
compiler, and the tests hold ours against it.
"""

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from smalti.codec.errors import DamagedFile
from smalti.ops.native import Kernels, kernels

TOTAL = 1 << 24  # what frequencies add up to
HALVES = np.array([TOTAL // 2, TOTAL // 2])  # frequencies of a bit as likely 0 as 1
DIGIT = 1 << 12  # the largest alphabet whose symbols are written at once as equally likely
SLACK_BITS = 64  # that a stream may hold beyond its bytes: a decoder goes on with zeros

Integers, Floats, Booleans, Words = NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.uint32]


class NativeCoder:
    """Our range coder: symbols (N,) by integer frequencies, (K,) of all alike or (N, K) of each.

    Args:
        native: the kernels. Those that code more than symbols change the state themselves.
        words: to be read; None to write.
    """

    PLACE, COUNT, HELD, WORDS = 3, 4, 5, 7  # in the state, which is `range_coder` of `codes.h`

    def __init__(self, native: Kernels, words: Words | None = None):
        self.native = native
        self.state = np.array([0, (1 << 64) - 1, 0, 0, 0, 0, 0, 0], np.uint64)
        if words is not None:
            first, second, *_ = (*words[:2].tolist(), 0, 0)
            self.state[2:4] = first << 32 | second, 2
        self._hold(np.empty(64, np.uint32) if words is None else words)

    def _hold(self, words: Words) -> None:
        self.words = words
        self.state[self.COUNT], self.state[self.WORDS] = len(words), words.ctypes.data

    def reserve(self, count: int) -> None:
        """Make room to write so many words more."""
        need = int(self.state[self.PLACE] + self.state[self.HELD]) + count + 2  # the end takes two at most
        if need > len(self.words):
            words = np.empty(max(need, 2 * len(self.words)), np.uint32)
            words[: len(self.words)] = self.words
            self._hold(words)

    def write(self, symbols: Integers, frequencies: Integers) -> None:
        """Write symbols (N,)."""
        assert frequencies.dtype == np.int64 and frequencies.shape[:-1] in ((), symbols.shape)
        at = symbols if frequencies.ndim == 1 else (np.arange(len(symbols)), symbols)
        sizes = frequencies[at]
        self.reserve(len(symbols))  # a symbol takes 24 bits at most
        self.native.write_intervals(self.state, np.cumsum(frequencies, -1)[at] - sizes, sizes)

    def read(self, count: int, frequencies: Integers) -> Integers:
        """Read symbols (N,)."""
        assert frequencies.dtype == np.int64 and frequencies.shape[:-1] in ((), (count,))
        symbols, ends = np.empty(count, np.int64), np.cumsum(np.atleast_2d(frequencies), 1)
        self.native.read_symbols(self.state, ends, symbols)
        return symbols

    @property
    def is_beyond(self) -> bool:
        """Whether more was read than a writer can have written: a word at least at the end; a reader is two ahead."""
        return int(self.state[self.PLACE]) > max(int(self.state[self.COUNT]) + 1, 2)

    def finish(self) -> Words:
        """All words, when everything is written."""
        self.native.end_stream(self.state)
        return self.words[: int(self.state[self.PLACE])]


class Constriction:
    """constriction's range coder, told integers.

    It takes probabilities as floating-point numbers, gives every symbol at least 1 of 2^24, and shares out the rest in
    proportion, rounded down. Told f - 1 for each symbol, where the f add up to 2^24, the proportion is 1, nothing is
    rounded, and the frequencies are f.
    """

    def __init__(self, words: Words | None = None):
        stream: Any = vars(constriction)["stream"]  # which its type hints leave out
        self._coder: Any = stream.queue.RangeEncoder() if words is None else stream.queue.RangeDecoder(words)
        self._categorical = stream.model.Categorical

    def _models(self, frequencies: Integers) -> list[Any]:
        weights = (frequencies - 1).astype(np.float64)
        if weights.ndim == 1:
            return [self._categorical(weights, perfect=False)]
        return [self._categorical(perfect=False), weights]

    def write(self, symbols: Integers, frequencies: Integers) -> None:
        """Write symbols (N,)."""
        self._coder.encode(symbols.astype(np.int32), *self._models(frequencies))

    def read(self, count: int, frequencies: Integers) -> Integers:
        """Read symbols (N,)."""
        counts = [count] if frequencies.ndim == 1 else []
        try:
            return self._coder.decode(*self._models(frequencies), *counts).astype(np.int64)
        except AssertionError as error:  # "tried to decode from compressed data that is invalid"
            raise DamagedFile("a stream is damaged") from error

    def finish(self) -> Words:
        """All words, when everything is written."""
        return self._coder.get_compressed()


def range_coder(words: Words | None = None) -> NativeCoder | Constriction:
    """A coder that writes, or one that reads words."""
    native = kernels()
    return Constriction(words) if native is None else NativeCoder(native, words)


class StreamWriter:
    """Writes symbols, bits and numbers."""

    def __init__(self) -> None:
        self.coder = range_coder()

    def symbols(self, symbols: Integers, frequencies: Integers) -> None:
        """Write symbols (N,) by frequencies (K,) or (N, K), each at least 1, that add up to 2^24."""
        if len(symbols) and frequencies.shape[-1] > 1:
            self.coder.write(symbols, frequencies)

    def bits(self, bits: Integers, ones: Integers) -> None:
        """Write bits (N,), each with its own frequency of a 1, (N,) from 1 to 2^24 - 1."""
        self.symbols(bits, np.stack([TOTAL - ones, ones], 1))

    def uniform(self, symbols: Integers, size: int) -> None:
        """Write integers (N,) in [0, size), all equally likely; large ones as two digits: rounding costs less."""
        if size > DIGIT:
            self.uniform(symbols // DIGIT, -(-size // DIGIT))
            self.uniform(symbols % DIGIT, DIGIT)
        else:
            self.symbols(symbols, _alike(size))

    def number(self, value: int) -> None:
        """Write an integer from 0 up in Elias's gamma code: 2 log2(value + 1) + 1 bits."""
        length = (value + 1).bit_length() - 1
        self._prefixed(length, value + 1, length)

    def rice(self, value: int, bits: int) -> None:
        """Write an integer from 0 up in Rice's code: value / 2^bits in unary, and `bits` bits."""
        self._prefixed(value >> bits, value, bits)

    def _prefixed(self, zeros: int, value: int, bits: int) -> None:
        """Write zeros, a 1, and the lowest bits of a value."""
        low = [value >> place & 1 for place in range(bits - 1, -1, -1)]
        self.symbols(np.array([0] * zeros + [1] + low), HALVES)

    def finish(self) -> bytes:
        """The stream."""
        return self.coder.finish().astype("<u4").tobytes()


class StreamReader:
    """Reads what a `StreamWriter` wrote, given the same frequencies. A damaged stream gives wrong symbols, or an error.

    Args:
        stream: what `StreamWriter.finish` gave.

    Raises:
        DamagedFile: its length is no multiple of 4.
    """

    def __init__(self, stream: bytes):
        if len(stream) % 4:
            raise DamagedFile(f"a stream of {len(stream)} bytes is not made of 32-bit words")
        self.num_bytes = len(stream)
        self.coder = range_coder(np.frombuffer(stream, "<u4").astype(np.uint32))

    def check_end(self) -> None:
        """Raise a DamagedFile if more was read than the stream has."""
        if isinstance(self.coder, NativeCoder) and self.coder.is_beyond:
            raise DamagedFile("a stream is cut off")

    def symbols(self, count: int, frequencies: Integers) -> Integers:
        """Read `count` symbols by frequencies (K,) or (count, K)."""
        if not count or frequencies.shape[-1] == 1:
            return np.zeros(count, np.int64)
        return self.coder.read(count, frequencies)

    def bits(self, ones: Integers) -> Integers:
        """Read bits (N,), each with its own frequency of a 1."""
        return self.symbols(len(ones), np.stack([TOTAL - ones, ones], 1))

    def uniform(self, count: int, size: int) -> Integers:
        """Read `count` integers in [0, size), all equally likely."""
        if size > DIGIT:
            return self.uniform(count, -(-size // DIGIT)) * DIGIT + self.uniform(count, DIGIT)
        return self.symbols(count, _alike(size))

    def number(self, most: int) -> int:
        """Read what `StreamWriter.number` wrote; a DamagedFile, if it is more than `most`."""
        return self._binary(1, self._zeros(most.bit_length()), most + 1) - 1

    def rice(self, bits: int, most: int) -> int:
        """Read what `StreamWriter.rice` wrote; a DamagedFile, if it is more than `most`."""
        return self._binary(self._zeros(most >> bits), bits, most)

    def _zeros(self, most: int) -> int:
        """How many zeros there are before the next 1."""
        for count in range(most + 1):
            if self.symbols(1, HALVES)[0]:
                return count
        raise DamagedFile("a number is larger than it can be")

    def _binary(self, value: int, count: int, most: int) -> int:
        """A number that begins with the digits of `value` and goes on with `count` bits."""
        for bit in self.symbols(count, HALVES).tolist():
            value = 2 * value + bit
        if value > most:
            raise DamagedFile("a number is larger than it can be")
        return value


def check_room(count: int, least_bits: float, num_bytes: int) -> None:
    """Raise a DamagedFile unless so many symbols of at least so many bits can be in a stream: no work without bytes."""
    if count * least_bits > 8 * num_bytes + SLACK_BITS:
        raise DamagedFile(f"{count} codes cannot be in {num_bytes} bytes")


def _alike(size: int) -> Integers:
    """Frequencies of symbols all equally likely; the last one takes what rounding leaves."""
    frequencies = np.full(size, TOTAL // size)
    frequencies[-1] += TOTAL % size
    return frequencies


def to_frequencies(weights: Integers) -> Integers:
    """Frequencies in proportion to integer weights (K,), each below 2^38: each at least 1, together 2^24.

    Every symbol gets 1 and its share of the rest, rounded down; what rounding leaves goes to the first of the largest.
    """
    rest, total = TOTAL - len(weights), int(weights.sum())
    shares = weights * rest // total if total else np.zeros_like(weights)
    shares[int(weights.argmax())] += rest - int(shares.sum())
    return shares + 1
