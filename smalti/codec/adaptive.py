"""The adaptive coder's context mixing: binary contexts over binarised codes that learn as they go, in integers only.

A code is binarised from its highest bit down. For each bit seven contexts say how likely a 1 is after what they have
seen at this node of the tree: nothing, the code on the left, the one above, both, the position, the three above (or,
beyond the first codebook, the code under it), and the code at this place of the image before. Their log-odds are mixed
with weights that learn online (logistic mixing, Mahoney's PAQ), one set of weights for how often the three
neighbourhoods were seen. No network, no training, and the same bytes on every machine: all is fixed-point arithmetic;
`ops/kernels/codes.h` is the same in C, a few hundred times faster.
"""

import functools
import math
from collections.abc import Sequence
from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

from smalti.codec.errors import DamagedFile
from smalti.codec.frequencies import tree_depth
from smalti.codec.streams import SLACK_BITS, Integers, NativeCoder, StreamReader, StreamWriter, check_room
from smalti.errors import SmaltiError

Shape = Sequence[int]  # (q, h, w)
Stream = StreamWriter | StreamReader
NUM_CONTEXTS = 7
LEVELS, SLOTS = 5, 32  # of the tree that lie together in memory, and the slots of their nodes
WEIGHT_SETS = 64
FEWEST_LINES, MOST_LINES = 1 << 7, 1 << 16  # of each context
MOST_SEEN = 60
STRETCH_LIMIT = 3071
FIRST_WEIGHT, MOST_WEIGHT = 1 << 12, 65_535  # of 2^14
LEAST_CHANCE, MOST_CHANCE = 127, (1 << 22) - 128  # of 2^22: steps are rounded down, by less than this
MASK = 0xFFFFFFFF
LEAST_BITS = -math.log2(65_535 / 65_536)  # that a decision takes


def least_bits(codebook_size: int) -> float:
    """The least that a code can take: the code K - 1 is asked only where K - 1 has a 1, any other more often."""
    return LEAST_BITS * (codebook_size - 1).bit_count()


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


def code_adaptively(
    stream: Stream, codes: Integers, shapes: Sequence[Shape], codebook_size: int, hints: Integers | None = None
) -> None:
    """Write codes to a stream, or read them from it into place; wrong ones, if it is damaged.

    Args:
        stream: to write to or to read from.
        codes: (N,) integers in [0, K), all images one after the other.
        shapes: of the images, (q, h, w).
        codebook_size: K.
        hints: (N,) something that encoder and decoder know of each code; two contexts take it in place of the position
            and of the image before.

    Raises:
        SmaltiError: codes, hints and shapes that do not belong together.
        DamagedFile: more codes than the stream to be read can hold.
    """
    if isinstance(stream, StreamReader):
        check_room(len(codes), least_bits(codebook_size), stream.num_bytes)
    for values in (codes,) if hints is None else (codes, hints):
        fit = values.dtype == np.int64 and values.flags.c_contiguous and all(min(shape) > 0 for shape in shapes)
        if not (fit and values.shape == (sum(map(math.prod, shapes)),)):
            raise SmaltiError(f"{values.dtype} {values.shape} are no codes or hints of {len(shapes)} such images")
    num_lines = min(max(FEWEST_LINES, 1 << (len(codes) - 1).bit_length()), MOST_LINES)  # a power of two
    coder, reading = stream.coder, isinstance(stream, StreamReader)
    if not isinstance(coder, NativeCoder):
        _Model(codebook_size, num_lines).run(codes, shapes, hints, stream)
        return
    if not reading:
        coder.reserve(len(codes) * tree_depth(codebook_size) // 2 + 64)  # a decision takes 16 bits at most
    memory = np.zeros(NUM_CONTEXTS * num_lines * SLOTS, np.uint32)
    sizes = np.array([list(shape) for shape in shapes], np.int64)
    coder.native.adaptive_codes(coder.state, codes, hints, sizes, *_tables(), memory, codebook_size, num_lines, reading)
    if isinstance(stream, StreamReader):
        stream.check_end()


class _Model:
    """The same in Python, line by line what `codes.h` does."""

    def __init__(self, codebook_size: int, num_lines: int):
        self.codebook_size, self.depth, self.mask = codebook_size, tree_depth(codebook_size), num_lines - 1
        self.slots: list[dict[int, tuple[int, int]]] = [{} for _ in range(NUM_CONTEXTS)]  # (chance of a 1, times seen)
        self.bits = 0.0  # that all decisions took
        self.weights = [[FIRST_WEIGHT] * NUM_CONTEXTS + [0] for _ in range(WEIGHT_SETS)]
        stretch, squash = _tables()
        self.stretch, self.squash = stretch.tolist(), squash.tolist()

    def run(self, codes: Integers, shapes: Sequence[Shape], hints: Integers | None, stream: Stream) -> None:
        """Go through all codes."""
        places = ((shape, place) for shape in shapes for place in np.ndindex(*shape))
        least = least_bits(self.codebook_size)
        most_bits = 8 * stream.num_bytes + SLACK_BITS if isinstance(stream, StreamReader) else math.inf
        for here, (shape, place) in enumerate(places):
            contexts = _contexts(codes, here, place, shape, None if hints is None else int(hints[here]))
            codes[here] = self._code(contexts, int(codes[here]), stream)
            if self.bits + (len(codes) - here - 1) * least > most_bits:
                raise DamagedFile("a stream is cut off")

    def _code(self, contexts: list[int], code: int, stream: Stream) -> int:
        prefix, node, lines = 0, 1, [0] * NUM_CONTEXTS
        for level in range(self.depth):
            if level % LEVELS == 0:
                node = 1
                lines = [_mixed(context + (prefix + 1) * 0x9E3779B9 + level) & self.mask for context in contexts]
            below, bit = self.depth - 1 - level, 0
            if (2 * prefix + 1) << below < self.codebook_size:
                bit = self._bit([line * SLOTS + node for line in lines], code >> below & 1, stream)
            prefix, node = 2 * prefix + bit, 2 * node + bit
        return prefix

    def _bit(self, places: list[int], bit: int, stream: Stream) -> int:
        found = [slots.get(place, (1 << 21, 0)) for slots, place in zip(self.slots, places, strict=True)]
        inputs = [self.stretch[chance >> 10] for chance, _ in found] + [256]
        weights = self.weights[sum(_seen_class(found[c][1]) * part for c, part in ((3, 16), (1, 4), (2, 1)))]
        odds = sum(weight * value for weight, value in zip(weights, inputs, strict=True)) >> 14
        chance_of_one = self.squash[max(-STRETCH_LIMIT, min(STRETCH_LIMIT, odds)) + STRETCH_LIMIT]
        ones = np.array([chance_of_one << 8])
        if isinstance(stream, StreamReader):
            bit = int(stream.bits(ones)[0])
        else:
            stream.bits(np.array([bit]), ones)
        self.bits -= math.log2((chance_of_one if bit else 65_536 - chance_of_one) / 65_536)
        error = ((bit << 16) - chance_of_one) >> 1
        for c, value in enumerate(inputs):
            weights[c] = max(-MOST_WEIGHT, min(MOST_WEIGHT, weights[c] + ((value * error + (1 << 15)) >> 16)))
        for slots, place, (chance, seen) in zip(self.slots, places, found, strict=True):
            rate = (2 << 16) // (2 * seen + 3)
            chance += (((MOST_CHANCE if bit else LEAST_CHANCE) - chance) >> 7) * rate >> 9
            slots[place] = (chance, min(seen + 1, MOST_SEEN))
        return bit


def _contexts(codes: Integers, here: int, place: Sequence[int], shape: Shape, hint: int | None) -> list[int]:
    """What the seven contexts are told by, as 32-bit hashes."""
    (q, y, x), (planes, height, width) = place, shape

    def code(back: int, known: bool) -> int:
        return int(codes[here - back]) + 1 if known else 0

    area = height * width
    plane, left, above = (q + 1) * 0x632BE5AB, code(1, x > 0), code(width, y > 0)
    corner, right = code(width + 1, x > 0 and y > 0), code(width - 1, y > 0 and x + 1 < width)
    under, before = code(area, q > 0), code(planes * area, here >= planes * area)
    around = _mixed(above + 0x40000000) + right * 0x9E3779B1 + corner
    return [
        plane,
        _mixed(plane + left),
        _mixed(plane + above + 0x10000000),
        _mixed(_mixed(plane + left) + above),
        _mixed(plane + (y * 4096 + x if hint is None else hint) + 0x20000000),
        _mixed(plane + under + 0x30000000) if q else _mixed(around),
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
