"""An integer context model of codes that learns as it goes: no network, no training, the same bytes on every machine.

A code is told by binary decisions, from its highest bit down. For each, seven contexts say how likely a 1 is after what
they have seen at this node of the tree: nothing, the code on the left, the one above, both, the position, the three
above (or, beyond the first codebook, the code under it), and the code at this place of the image before. Their log-odds
are mixed with weights that learn online (logistic mixing, Mahoney's PAQ), one set of weights for how often the three
neighbourhoods were seen. All is fixed-point arithmetic on integers; `ops/kernels/codes.h` is the same in C, a few
hundred times faster.
"""

import functools
import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from itertools import product

import numpy as np
from numpy.typing import NDArray

from smalti.codec.frequencies import tree_depth
from smalti.codec.streams import StreamReader, StreamWriter, words_of
from smalti.ops.native import kernels

Shape = Sequence[int]  # (q, h, w)
NUM_CONTEXTS = 7
LEVELS, SLOTS = 5, 32  # of the tree that lie together in memory, and the slots of their nodes
WEIGHT_SETS = 64
FEWEST_LINES, MOST_LINES = 1 << 7, 1 << 16  # of each context
MOST_SEEN = 60
STRETCH_LIMIT = 3071
FIRST_WEIGHT, MOST_WEIGHT = 1 << 12, 65_535  # of 2^14
LEAST_CHANCE, MOST_CHANCE = 127, (1 << 22) - 128  # of 2^22: steps are rounded down, by less than this
MASK = 0xFFFFFFFF


@functools.cache
def _tables() -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Log-odds x 256 of 12-bit probabilities, and 16-bit probabilities of log-odds x 256, by decimal arithmetic."""
    context = Context(prec=30)
    half = Decimal("0.5")
    upper = [context.ln((index + half) / (Decimal(4096) - half - index)) for index in range(2048, 4096)]
    stretched = [int(context.multiply(odds, Decimal(256)) + half) for odds in upper]
    squashed = [int(65536 / (1 + context.exp(Decimal(-odds) / 256)) + half) for odds in range(1, STRETCH_LIMIT + 1)]
    stretch = [-value for value in reversed(stretched)] + stretched
    squash = [65536 - value for value in reversed(squashed)] + [32768] + squashed
    return np.array(stretch, np.int16), np.array(squash).clip(1, 65535).astype(np.uint16)


def encode_adaptive(
    codes: NDArray[np.int64], shapes: Sequence[Shape], codebook_size: int, hints: NDArray[np.int64] | None = None
) -> bytes:
    """The stream of codes (N,) of images of these shapes (q, h, w).

    Args:
        codes: integers in [0, K), all images one after the other.
        shapes: of the images.
        codebook_size: K.
        hints: (N,) something that encoder and decoder know of each code; two contexts take it in place of the position
            and of the image before.
    """
    native = kernels()
    if native is None:
        writer = StreamWriter()

        def write(place: int, below: int, ones: int) -> int:
            bit = int(codes[place]) >> below & 1
            writer.bits(np.array([bit]), np.array([ones]))
            return bit

        _Model(codebook_size, len(codes)).run(codes, shapes, hints, write)
        return writer.finish()
    room = len(codes) * tree_depth(codebook_size) // 2 + 64  # words: a decision costs 16 bits at most
    words, used = np.empty(room, np.uint32), np.zeros(1, np.int64)
    native.encode_codes(
        np.ascontiguousarray(codes), _array(hints), _shapes(shapes), *_tables(), words, used, len(shapes),
        codebook_size, room,
    )  # fmt: skip
    _check_memory(used)
    return words[: int(used[0])].astype("<u4").tobytes()


def decode_adaptive(
    stream: bytes, shapes: Sequence[Shape], codebook_size: int, hints: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The codes (N,) of images of these shapes, with the same hints; wrong ones, if the stream is damaged.

    Raises:
        DamagedFile: the stream's length is no multiple of 4.
    """
    codes = np.zeros(sum(map(math.prod, shapes)), np.int64)
    native = kernels()
    if native is None:
        reader = StreamReader(stream)

        def read(place: int, below: int, ones: int) -> int:
            return int(reader.bits(np.array([ones]))[0])

        _Model(codebook_size, len(codes)).run(codes, shapes, hints, read)
        return codes
    words, used = words_of(stream), np.zeros(1, np.int64)
    native.decode_codes(
        words, _array(hints), _shapes(shapes), *_tables(), codes, used, len(shapes), codebook_size, len(words)
    )
    _check_memory(used)
    return codes


def _array(hints: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return None if hints is None else np.ascontiguousarray(hints)


def _shapes(shapes: Sequence[Shape]) -> NDArray[np.int64]:
    return np.array([list(shape) for shape in shapes], np.int64)


def _check_memory(used: NDArray[np.int64]) -> None:
    if used[0] < 0:
        raise MemoryError("the context model needs about 60 MB")


class _Model:
    """The same in Python, line by line what `codes.h` does.

    Args:
        codebook_size: K.
        count: codes in all.
    """

    def __init__(self, codebook_size: int, count: int):
        self.codebook_size, self.depth = codebook_size, tree_depth(codebook_size)
        num_lines = FEWEST_LINES
        while num_lines < MOST_LINES and num_lines < count:
            num_lines *= 2
        self.mask = num_lines - 1
        self.slots: list[dict[int, tuple[int, int]]] = [{} for _ in range(NUM_CONTEXTS)]  # (chance of a 1, times seen)
        self.weights = [[FIRST_WEIGHT] * NUM_CONTEXTS + [0] for _ in range(WEIGHT_SETS)]
        stretch, squash = _tables()
        self.stretch, self.squash = stretch.tolist(), squash.tolist()

    def run(
        self,
        codes: NDArray[np.int64],
        shapes: Sequence[Shape],
        hints: NDArray[np.int64] | None,
        bit_of: Callable[[int, int, int], int],
    ) -> None:
        """Go through all codes; `bit_of(place, below, ones)` writes or reads the bit with so many below it."""
        here = 0
        for planes, height, width in shapes:
            for q, y, x in product(range(planes), range(height), range(width)):
                hint = None if hints is None else int(hints[here])
                contexts = _contexts(codes, here, (q, y, x), (planes, height, width), hint)
                codes[here] = self._code(contexts, functools.partial(bit_of, here))
                here += 1

    def _code(self, contexts: list[int], bit_of: Callable[[int, int], int]) -> int:
        prefix, node, lines = 0, 1, [0] * NUM_CONTEXTS
        for level in range(self.depth):
            if level % LEVELS == 0:
                node = 1
                lines = [_mixed(context + (prefix + 1) * 0x9E3779B9 + level) & self.mask for context in contexts]
            below, bit = self.depth - 1 - level, 0
            if (2 * prefix + 1) << below < self.codebook_size:
                places = [line * SLOTS + node for line in lines]
                bit = self._bit(places, lambda ones, below=below: bit_of(below, ones))
            prefix, node = 2 * prefix + bit, 2 * node + bit
        return prefix

    def _bit(self, places: list[int], bit_of: Callable[[int], int]) -> int:
        found = [slots.get(place, (1 << 21, 0)) for slots, place in zip(self.slots, places, strict=True)]
        inputs = [self.stretch[chance >> 10] for chance, _ in found] + [256]
        weights = self.weights[sum(_seen_class(found[c][1]) * part for c, part in ((3, 16), (1, 4), (2, 1)))]
        odds = sum(weight * value for weight, value in zip(weights, inputs, strict=True)) >> 14
        chance_of_one = self.squash[max(-STRETCH_LIMIT, min(STRETCH_LIMIT, odds)) + STRETCH_LIMIT]
        bit = bit_of(chance_of_one << 8)
        error = ((bit << 16) - chance_of_one) >> 1
        for c, value in enumerate(inputs):
            weights[c] = max(-MOST_WEIGHT, min(MOST_WEIGHT, weights[c] + ((value * error + (1 << 15)) >> 16)))
        for slots, place, (chance, seen) in zip(self.slots, places, found, strict=True):
            rate = (2 << 16) // (2 * seen + 3)
            chance += (((MOST_CHANCE if bit else LEAST_CHANCE) - chance) >> 7) * rate >> 9
            slots[place] = (chance, min(seen + 1, MOST_SEEN))
        return bit


def _contexts(
    codes: NDArray[np.int64], here: int, at: tuple[int, int, int], shape: Sequence[int], hint: int | None
) -> list[int]:
    """What the seven contexts are told by, as 32-bit hashes."""
    (q, y, x), (planes, height, width) = at, shape

    def code(back: int, known: bool) -> int:
        return int(codes[here - back]) + 1 if known else 0

    area = height * width
    plane, left, above = (q + 1) * 0x632BE5AB, code(1, x > 0), code(width, y > 0)
    corner, right = code(width + 1, x > 0 and y > 0), code(width - 1, y > 0 and x + 1 < width)
    under, before = code(area, q > 0), code(planes * area, here >= planes * area)
    beside = _mixed(above + 0x40000000) + right * 0x9E3779B1 + corner
    return [
        plane,
        _mixed(plane + left),
        _mixed(plane + above + 0x10000000),
        _mixed(_mixed(plane + left) + above),
        _mixed(plane + (y * 4096 + x if hint is None else hint) + 0x20000000),
        _mixed(plane + under + 0x30000000) if q else _mixed(beside),
        _mixed(plane + before + 0x50000000) if hint is None else _mixed(_mixed(plane + hint + 0x50000000) + left),
    ]


def _mixed(x: int) -> int:
    """MurmurHash3's finaliser of the lowest 32 bits."""
    x &= MASK
    x = (x ^ x >> 16) * 0x85EBCA6B & MASK
    x = (x ^ x >> 13) * 0xC2B2AE35 & MASK
    return x ^ x >> 16


def _seen_class(seen: int) -> int:
    """Never, once, two or three times, more."""
    return seen if seen < 2 else 2 if seen < 4 else 3
