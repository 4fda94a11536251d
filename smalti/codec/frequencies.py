"""From a network's logits to integer frequencies that another machine finds again, though its logits differ a little.

A code is told by binary decisions, from its most significant bit down; each has the log-odds

    x = ln(sum of exp(logits) of the codes with a 1 here) - ln(the same with a 0)

that are rounded to one of a few cells. Two machines agree on the cell unless x lies within the noise of a boundary, and
the encoder can make sure that none does: it shifts all boundaries of a block of codes until every decision is clear of
them, and tells the decoder the shift, a few bits for a few hundred codes. Nothing else depends on floating point: a
cell and a shift give the frequency by a table of integers.

Cells are equal in g(x) = x / (|x| + SOFTNESS): finest where both answers are likely, where a wrong probability costs
most.
"""

import functools
from decimal import Context, Decimal
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smalti.codec.streams import PRECISION, FastBitReader
from smalti.ops.native import kernels_for

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CELLS = 48  # per unit shift over g in (-1, 1)
SOFTNESS = 6
SHIFTS = 1 << 16  # a shift is so many parts of a cell
GOLDEN = 40_503  # SHIFTS divided by the golden ratio: successive shifts lie far from each other
MOST_SHIFTS = 1 << 12  # tried for one block
TABLE = 1 << 13  # entries of the table of frequencies
LARGEST_ODDS = 16  # of its log-odds: 2 of 2^24

RELATIVE_NOISE = 1.1e-5  # of each logit, between the machines that encode and decode
SIDES = np.arange(2)
FEWEST_MASS = 1e-30  # sums of probability below this are made again, apart
FLOAT_NOISE = 1.5e-6  # of the largest logit: what the rounding of float32 does to all of them


def tree_depth(codebook_size: int) -> int:
    """L, decisions for a code at most."""
    return max(1, (codebook_size - 1).bit_length())


class Decisions(NamedTuple):
    """The binary decisions on the way to some codes, L each."""

    odds: Floats  # (N, L): log-odds of a 1
    noise: Floats  # (N, L): how far noise can move them
    asked: Booleans  # (N, L): whether there is anything to decide


def decisions(logits: Tensor, codes: Integers) -> Decisions:
    """The decisions that tell codes (N,) under logits (N, K)."""
    depth, native = tree_depth(logits.shape[1]), kernels_for(logits)
    if native is not None:
        odds, noise = torch.empty(2, len(codes), depth, dtype=torch.float64)
        native.decisions(
            logits.contiguous(), torch.from_numpy(np.ascontiguousarray(codes)), odds, noise, *logits.shape, depth,
            RELATIVE_NOISE, FLOAT_NOISE,
        )  # fmt: skip
        return Decisions(odds.numpy(), noise.numpy(), noise.numpy() >= 0)
    tree = Tree(logits)
    found = [tree.at(level, codes >> (depth - level)) for level in range(depth)]
    reach = [tree.noise_at(level, codes >> (depth - level)) for level in range(depth)]
    odds, asked = (np.stack(values, 1) for values in zip(*found, strict=True))
    return Decisions(odds, np.stack(reach, 1), asked)


class Tree:
    """The sums of probability below every node of the binary tree over codes, for N positions at once.

    Args:
        logits: (N, K).
    """

    def __init__(self, logits: Tensor):
        count, self.codebook_size = logits.shape
        self.depth, self.rows, self.logits = tree_depth(self.codebook_size), np.arange(count), logits
        native = kernels_for(logits)
        if native is None:
            exact = logits.double().cpu().numpy()
            self.mass = _sums(np.exp(exact - exact.max(1, keepdims=True)), self.depth)
            return
        mass = torch.empty(count, 2 << self.depth)
        native.masses(logits.contiguous(), mass, count, self.codebook_size, self.depth)
        self.mass = mass.numpy()

    def at(self, level: int, prefix: Integers) -> tuple[Floats, Booleans]:
        """The decision below each position's prefix, its most significant `level` bits.

        Returns:
            Log-odds (N,) of a 1, and whether there is anything to decide (N,).
        """
        children = self.mass[self.rows[:, None], 2 * ((1 << level) + prefix)[:, None] + SIDES].astype(np.float64)
        asked = (2 * prefix + 1) << (self.depth - 1 - level) < self.codebook_size
        smallest = children.min(1)
        logs = np.log(np.maximum(children, FEWEST_MASS))
        odds = logs[:, 1] - logs[:, 0]
        if len(smallest) and smallest.min() < FEWEST_MASS:
            for row in np.flatnonzero(asked & (smallest < FEWEST_MASS)):
                odds[row] = self._exact(int(row), level, int(prefix[row]))
        return odds, asked

    def noise_at(self, level: int, prefix: Integers) -> Floats:
        """How far noise can move the decisions (N,) of `at`."""
        logits = self.logits.double().cpu().numpy()
        size = np.abs(logits)
        noise = RELATIVE_NOISE * size + FLOAT_NOISE * size.max(1, keepdims=True)
        below = self.depth - 1 - level
        first = (2 * prefix)[:, None] << below
        place = np.arange(self.codebook_size)
        total = np.zeros(len(prefix))
        for start in (first, first + (1 << below)):
            inside = (place >= start) & (place < start + (1 << below))
            own = np.where(inside, logits, -np.inf)
            weights = np.exp(own - np.maximum(own.max(1, keepdims=True), -1e300))
            total += (weights * noise).sum(1) / np.maximum(weights.sum(1), np.finfo(np.float64).tiny)
        return total

    def _exact(self, row: int, level: int, prefix: int) -> float:
        """A decision between two faint probabilities, whose sums are made apart."""
        width = 1 << (self.depth - 1 - level)
        logits = self.logits[row].double().cpu().numpy()
        first = 2 * prefix * width
        zero, one = logits[first : first + width], logits[first + width : first + 2 * width]
        return float(_log_sum(one) - _log_sum(zero))


def _log_sum(logits: Floats) -> float:
    top = logits.max()
    return float(np.log(np.exp(logits - top).sum()) + top)


def _sums(leaves: Floats, depth: int) -> Floats:
    """Sums (N, 2 << depth) below all nodes of a binary heap with leaves (N, K)."""
    sums = np.zeros((len(leaves), 2 << depth))
    sums[:, 1 << depth : (1 << depth) + leaves.shape[1]] = leaves
    for level in range(depth - 1, -1, -1):
        row = sums[:, 2 << level : 4 << level]
        sums[:, 1 << level : 2 << level] = row[:, 0::2] + row[:, 1::2]
    return sums


def places(log_odds: Floats) -> Floats:
    """Where log-odds lie among the cells, in [0, CELLS], before any shift."""
    clipped = np.clip(log_odds, -LARGEST_ODDS, LARGEST_ODDS)
    return (clipped / (np.abs(clipped) + SOFTNESS) + 1) * (CELLS / 2)


def cells(log_odds: Floats, shift: int) -> Integers:
    """The cells of log-odds, when the boundaries are shifted by shift / SHIFTS of a cell."""
    return np.floor(places(log_odds) + shift / SHIFTS).astype(np.int64)


def frequencies(cell: Integers, shift: int) -> Integers:
    """The frequency of a 1, of 2^PRECISION, in a cell: exact integers."""
    middle = (cell * SHIFTS + SHIFTS // 2 - shift).clip(0, CELLS * SHIFTS - 1)
    return _table()[middle * TABLE // (CELLS * SHIFTS)]


def read_codes(logits: Tensor, shift: int, reader: FastBitReader) -> Integers:
    """The codes (N,) that a stream says under logits (N, K), float32 on the CPU: `Tree` and `frequencies` in one."""
    codes, depth = np.empty(len(logits), np.int64), tree_depth(logits.shape[1])
    reader.native.read_codes(
        logits.contiguous(), reader.words, reader.state, _table(), codes, *logits.shape, depth, len(reader.words),
        TABLE, CELLS, shift, SHIFTS, float(SOFTNESS), float(LARGEST_ODDS),
    )  # fmt: skip
    return codes


@functools.cache
def _table() -> Integers:
    """Frequencies of a 1 at TABLE places of g in (-1, 1), by decimal arithmetic, which is the same everywhere."""
    context = Context(prec=30)
    upper = []
    for index in range(TABLE // 2, TABLE):
        g = context.divide(Decimal(2 * index + 1 - TABLE), Decimal(TABLE))
        odds = min(context.divide(SOFTNESS * g, 1 - g), Decimal(LARGEST_ODDS))
        probability = context.divide(Decimal(1), 1 + context.exp(-odds))
        upper.append(int(probability * (1 << PRECISION) + Decimal("0.5")))
    return np.array([(1 << PRECISION) - value for value in reversed(upper)] + upper)


def find_shift(log_odds: Floats, noise: Floats) -> int | None:
    """The number of the first shift with which no decision lies within its noise of a boundary; None if none does.

    Args:
        log_odds: (N,).
        noise: (N,), how far each can be moved.
    """
    place = places(log_odds)
    reach = np.maximum(places(log_odds + noise) - place, place - places(log_odds - noise))
    return clear_shift(place, reach)


def clear_shift(place: Floats, reach: Floats) -> int | None:
    """The number of the first shift that brings no place (N,) within its reach (N,) of a whole number, or None."""
    reach = reach + 1e-9
    if (reach >= 0.5).any():
        return None
    numbers = np.arange(MOST_SHIFTS)
    if not len(place):
        return 0
    shifts = shift_of(numbers) / SHIFTS
    # a shift is bad while place + shift lies within the reach of an integer: intervals on a circle
    start = (-place - reach) % 1.0
    order = np.argsort(start)
    start, covered_to = start[order], np.maximum.accumulate((start + 2 * reach)[order])
    before = np.searchsorted(start, shifts, side="right") - 1
    clear = (shifts > np.where(before >= 0, covered_to[before], -1.0)) & (shifts > covered_to[-1] - 1)
    return int(numbers[clear][0]) if clear.any() else None


def shift_of(number: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The shift, in [0, SHIFTS), of a number in [0, MOST_SHIFTS)."""
    return np.asarray(number) * GOLDEN % SHIFTS
