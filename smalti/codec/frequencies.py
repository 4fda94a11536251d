"""Quantized probabilities for entropy coding: from a network's logits to integer frequencies that another machine finds
again, though its logits differ a little.

Codes are binarised: bit after bit, the most significant first. Each decision has the log-odds

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

from smalti.codec.streams import TOTAL, Booleans, Floats, Integers, NativeCoder, StreamReader
from smalti.errors import SmaltiError
from smalti.ops.native import kernels_for

CELLS = 48  # per unit shift over g in (-1, 1)
SOFTNESS = 6
SHIFTS = 1 << 16  # a shift is so many parts of a cell
GOLDEN = 40_503  # SHIFTS divided by the golden ratio: successive shifts lie far from each other
MOST_SHIFTS = 1 << 12  # tried for one block
TABLE = 1 << 13  # entries of the table of frequencies
LARGEST_ODDS = 16  # of its log-odds: 2 of 2^24

RELATIVE_NOISE = 1.1e-5  # of each logit, between the machines that encode and decode
FLOAT_NOISE = 1.5e-6  # of the largest logit: what the rounding of float32 does to all of them
RULES = np.array([CELLS, SOFTNESS, LARGEST_ODDS, RELATIVE_NOISE, FLOAT_NOISE])  # what `decisions.h` is told of these


def tree_depth(codebook_size: int) -> int:
    """L, decisions for a code at most."""
    return max(1, (codebook_size - 1).bit_length())


class Decisions(NamedTuple):
    """The binary decisions on the way to N codes, L each."""

    odds: Floats  # (N, L): log-odds of a 1
    noise: Floats  # (N, L): how far noise can move them; -1 where no code has a 1 and nothing is asked

    @property
    def asked(self) -> Booleans:
        """Whether there is anything to decide, (N, L)."""
        return self.noise >= 0


def decisions(logits: Tensor, codes: Integers) -> Decisions:
    """The decisions that tell codes (N,) under logits (N, K)."""
    _check(logits, codes)
    if len(codes) and not (codes.min() >= 0 and codes.max() < logits.shape[1]):
        raise SmaltiError(f"codes must lie in [0, {logits.shape[1]}), not in [{codes.min()}, {codes.max()}]")
    native = kernels_for(logits)
    if native is None:
        return _decisions(logits, codes)
    found = Decisions(*np.empty((2, len(codes), tree_depth(logits.shape[1]))))
    native.decisions(logits.contiguous(), np.ascontiguousarray(codes), RULES, found.odds, found.noise)
    return found


def read_codes(logits: Tensor, shift: int | None, stream: StreamReader) -> Integers:
    """The codes (N,) that a stream tells under logits (N, K), decision after decision for all of them side by side."""
    _check(logits, None)
    native, coder = kernels_for(logits), stream.coder
    if native is None or not isinstance(coder, NativeCoder):
        return _read_codes(logits, shift, stream)
    codes, mass = np.empty(len(logits), np.int64), torch.empty(len(logits), 2 << tree_depth(logits.shape[1]))
    of_cells, offset = cell_frequencies(shift), (shift or 0) / SHIFTS
    native.read_codes(coder.state, logits.contiguous(), of_cells, RULES, mass, codes, offset)
    return codes


def _check(logits: Tensor, codes: Integers | None) -> None:
    shape = tuple(logits.shape)
    if len(shape) != 2 or not shape[1] or not logits.is_floating_point():
        raise SmaltiError(f"logits must be floating-point numbers (N, K), K above 0, not {logits.dtype} {shape}")
    if codes is not None and not (codes.shape == shape[:1] and codes.dtype == np.int64):
        raise SmaltiError(f"codes must be int64 {shape[:1]}, not {codes.dtype} {codes.shape}")


def _decisions(logits: Tensor, codes: Integers) -> Decisions:
    """`decisions` in numpy."""
    odds, noise, rows = [], [], np.arange(len(codes))
    for level, (level_odds, level_noise) in enumerate(_trees(logits)):
        prefix = codes >> (tree_depth(logits.shape[1]) - level)
        odds.append(level_odds[rows, prefix])
        noise.append(np.where(_asked(prefix, level, logits.shape[1]), level_noise[rows, prefix], -1))
    return Decisions(np.stack(odds, 1), np.stack(noise, 1))


def _read_codes(logits: Tensor, shift: int | None, stream: StreamReader) -> Integers:
    """`read_codes` in numpy."""
    codes, rows = np.zeros(len(logits), np.int64), np.arange(len(logits))
    for level, (odds, _) in enumerate(_trees(logits)):
        asked, here = _asked(codes, level, logits.shape[1]), odds[rows, codes]
        codes = 2 * codes
        codes[asked] += stream.bits(frequencies(here[asked], shift))
    return codes


def _asked(prefix: Integers, level: int, codebook_size: int) -> Booleans:
    """Whether a code has a 1 after these prefixes (N,), its most significant `level` bits."""
    return (2 * prefix + 1) << (tree_depth(codebook_size) - 1 - level) < codebook_size


def _trees(logits: Tensor) -> list[tuple[Floats, Floats]]:
    """Log-odds and their noise (N, 2^level) of the decisions at all prefixes, level after level, for logits (N, K)."""
    leaves, levels = logits.cpu().double().numpy(), []
    missing = [(0, 0), (0, (1 << tree_depth(leaves.shape[1])) - leaves.shape[1])]
    size = np.abs(leaves)
    noise = np.pad(RELATIVE_NOISE * size + FLOAT_NOISE * size.max(1, keepdims=True), missing)
    mass = np.pad(leaves, missing, constant_values=-1e300)  # the logarithm of
    while mass.shape[1] > 1:
        zero, one = mass[:, 0::2], mass[:, 1::2]
        levels.append((one - zero, noise[:, 0::2] + noise[:, 1::2]))
        mass = np.logaddexp(zero, one)
        noise = noise[:, 0::2] * np.exp(zero - mass) + noise[:, 1::2] * np.exp(one - mass)
    return levels[::-1]


def places(log_odds: Floats) -> Floats:
    """Where log-odds lie among the cells, in [0, CELLS], before any shift."""
    clipped = np.clip(log_odds, -LARGEST_ODDS, LARGEST_ODDS)
    return (clipped / (np.abs(clipped) + SOFTNESS) + 1) * (CELLS / 2)


def cells(log_odds: Floats, shift: int) -> Integers:
    """The cells of log-odds, when the boundaries are shifted by shift / SHIFTS of a cell."""
    return np.floor(places(log_odds) + shift / SHIFTS).astype(np.int64).clip(0, CELLS)


def frequencies(log_odds: Floats, shift: int | None) -> Integers:
    """The frequencies of a 1, of 2^24, for log-odds rounded to their cells; all a half without a shift."""
    return cell_frequencies(shift)[cells(log_odds, shift or 0)]


@functools.lru_cache(64)
def cell_frequencies(shift: int | None) -> Integers:
    """The frequencies of a 1 in the cells (CELLS + 1,): exact integers."""
    if shift is None:
        return np.full(CELLS + 1, TOTAL // 2)
    middle = (np.arange(CELLS + 1) * SHIFTS + SHIFTS // 2 - shift).clip(0, CELLS * SHIFTS - 1)
    return _table()[middle * TABLE // (CELLS * SHIFTS)]


@functools.cache
def _table() -> Integers:
    """Frequencies of a 1 at TABLE places of g in (-1, 1), by decimal arithmetic, which is the same everywhere."""
    context, upper = Context(prec=30), []
    for index in range(TABLE // 2, TABLE):
        g = context.divide(Decimal(2 * index + 1 - TABLE), Decimal(TABLE))
        odds = min(context.divide(SOFTNESS * g, 1 - g), Decimal(LARGEST_ODDS))
        probability = context.divide(Decimal(1), 1 + context.exp(-odds))
        upper.append(int(probability * TOTAL + Decimal("0.5")))
    return np.array([TOTAL - value for value in reversed(upper)] + upper)


def find_shift(log_odds: Floats, noise: Floats) -> int | None:
    """The number of the first shift with which no log-odds (N,) lie within their noise (N,) of a boundary, or None."""
    place = places(log_odds)
    reach = np.maximum(places(log_odds + noise) - place, place - places(log_odds - noise))
    return clear_shift(place, reach)


def clear_shift(place: Floats, reach: Floats) -> int | None:
    """The number of the first shift that brings no place (N,) within its reach (N,) of a whole number, or None."""
    if not len(place):
        return 0
    reach = reach + 1e-9
    if (reach >= 0.5).any():
        return None
    shifts = shift_of(np.arange(MOST_SHIFTS)) / SHIFTS
    # a shift is bad while place + shift lies within the reach of an integer: intervals on a circle
    start = (-place - reach) % 1.0
    order = np.argsort(start)
    start, covered_to = start[order], np.maximum.accumulate((start + 2 * reach)[order])
    before = np.searchsorted(start, shifts, side="right") - 1
    clear = (shifts > np.where(before >= 0, covered_to[before], -1.0)) & (shifts > covered_to[-1] - 1)
    return int(clear.argmax()) if clear.any() else None


def shift_of(number: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The shift, in [0, SHIFTS), of a number in [0, MOST_SHIFTS)."""
    return np.asarray(number) * GOLDEN % SHIFTS
