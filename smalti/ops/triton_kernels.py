"""The nearest code and the Gumbel-Softmax bottleneck for CUDA, in Triton. Switched off: SMALTI_TRITON=on.

Never run on a GPU: the tests run them in Triton's interpreter where Triton is installed (TRITON_INTERPRET=1). Same
contracts as `nearest_code` and `gumbel_latents`; the noise is the native kernels' (the same bits of the same hash), and
nothing of size N x K is written but the gradient of the logits.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false
# ruff: noqa: PLR0913

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, CODES = 32, 64  # of a tile
GOLDEN, FIRST_MIX, SECOND_MIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def nearest(features: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    """`nearest_code` of (N, D), (K, D), (K,)."""
    (rows, dim), size = features.shape, len(codebook)
    codes = features.new_empty(rows, dtype=torch.int64)
    _nearest[(triton.cdiv(rows, ROWS),)](
        features.contiguous(), codebook.contiguous(), bias.contiguous(), codes,
        rows, size, dim, _padded(dim), ROWS, CODES,
    )  # fmt: skip
    return codes


def gumbel(
    logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The forward pass: latents, kl, codes, drawn, stats, as `smalti::gumbel_softmax` gives them."""
    (rows, size), dim = logits.shape, codebook.shape[1]
    logits, codebook = logits.contiguous(), codebook.contiguous()
    latents, kl, stats = logits.new_empty(rows, dim), logits.new_empty(rows), logits.new_empty(rows, 4)
    codes, drawn = (torch.empty(rows, dtype=torch.int64, device=logits.device) for _ in range(2))
    _gumbel[(triton.cdiv(rows, ROWS),)](
        logits, codebook, row_keys(rows, seed, logits.device), latents, kl, codes, drawn, stats,
        rows, size, dim, 1 / temperature, hard, _padded(dim), ROWS, CODES,
    )  # fmt: skip
    return (codebook[drawn] if hard else latents), kl, codes, drawn, stats


def gumbel_backward(
    logits: Tensor,
    codebook: Tensor,
    stats: Tensor,
    means: Tensor,
    latents_gradient: Tensor,
    kl_gradient: Tensor,
    temperature: float,
    hard: bool,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The gradient in the logits and, unless `hard`, in the codebook; `means` (N,) as for the native kernel."""
    (rows, size), dim = logits.shape, codebook.shape[1]
    logits, codebook, up = logits.contiguous(), codebook.contiguous(), latents_gradient.contiguous()
    keys, inverse = row_keys(rows, seed, logits.device), 1 / temperature
    logits_gradient, codebook_gradient = torch.empty_like(logits), torch.empty_like(codebook)
    _logits_gradient[(triton.cdiv(rows, ROWS),)](
        logits, codebook, keys, stats, means, up, kl_gradient.contiguous(), logits_gradient,
        rows, size, dim, inverse, hard, _padded(dim), ROWS, CODES,
    )  # fmt: skip
    if not hard:
        _codebook_gradient[(triton.cdiv(size, CODES),)](
            logits, keys, stats, up, codebook_gradient, rows, size, dim, inverse, _padded(dim), ROWS, CODES
        )  # fmt: skip
    return logits_gradient, codebook_gradient


def row_keys(rows: int, seed: int, device: torch.device) -> Tensor:
    """(N, 2) int32: the two halves of `row_keys` in gumbel.h, in wrapping 64-bit arithmetic."""
    x = _signed(seed) + torch.arange(1, rows + 1, device=device) * _signed(GOLDEN)
    for shift, factor in ((30, FIRST_MIX), (27, SECOND_MIX)):
        x = (x ^ (x >> shift & (1 << 64 - shift) - 1)) * _signed(factor)
    x = x ^ (x >> 31 & (1 << 33) - 1)
    return torch.stack([_signed_32(x & 0xFFFFFFFF), x >> 32], dim=1).int()


def _signed(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _signed_32(value: Tensor) -> Tensor:
    return (value ^ 0x80000000) - 0x80000000


def _padded(dim: int) -> int:
    return max(16, triton.next_power_of_2(dim))  # what a product on tensor cores needs


@triton.jit
def _nearest(
    features, codebook, bias, codes, rows, size, dim, DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr
):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    inside = (row[:, None] < rows) & (column[None, :] < dim)
    left = tl.load(features + row[:, None] * dim + column[None, :], inside, 0.0)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    chosen = tl.zeros((ROWS,), tl.int32)
    for first in range(0, size, CODES):
        code = first + tl.arange(0, CODES)
        right = _vectors(codebook, code, size, column, dim)
        start = tl.load(bias + code, code < size, float("-inf"))
        score = tl.dot(left, tl.trans(right), input_precision="ieee") + start[None, :]
        top = tl.max(score, 1)
        at = first + tl.argmax(score, 1, tie_break_left=True)
        chosen = tl.where(top > best, at, chosen)
        best = tl.maximum(top, best)
    tl.store(codes + row, chosen.to(tl.int64), row < rows)


@triton.jit
def _vectors(codebook, code, size, column, dim):
    inside = (code[:, None] < size) & (column[None, :] < dim)
    return tl.load(codebook + code[:, None] * dim + column[None, :], inside, 0.0)


@triton.jit
def _noise(low, high, code):
    """Standard Gumbel noise (ROWS, CODES) as in gumbel.h."""
    x = (code.to(tl.uint32) * 0x9E3779B9)[None, :] ^ low.to(tl.uint32, bitcast=True)[:, None]
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) + high.to(tl.uint32, bitcast=True)[:, None]
    x = x * 0xC2B2AE35
    x = x ^ (x >> 16)
    exponential = -tl.log(((x >> 8).to(tl.float32) + 1.0) * (1.0 / 16777216.0))
    return -tl.log(tl.maximum(exponential, 1.0 / 33554432.0))


@triton.jit
def _tile(logits, row, code, rows, size):
    inside = (row[:, None] < rows) & (code[None, :] < size)
    return tl.load(logits + row[:, None].to(tl.int64) * size + code[None, :], inside, float("-inf"))


@triton.jit
def _gumbel(
    logits, codebook, keys, latents, kl, codes, drawn, stats, rows, size, dim, inverse, hard: tl.constexpr,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """One pass over the codes; sums are rescaled whenever a larger value is met."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    low, high = tl.load(keys + 2 * row, row < rows, 0), tl.load(keys + 2 * row + 1, row < rows, 0)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    noisy_top = tl.full((ROWS,), float("-inf"), tl.float32)
    code_at, drawn_at = tl.zeros((ROWS,), tl.int32), tl.zeros((ROWS,), tl.int32)
    total, weighted, noisy_total = (
        tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    )  # fmt: skip
    sums = tl.zeros((ROWS, DIM), tl.float32)
    for first in range(0, size, CODES):
        code = first + tl.arange(0, CODES)
        value = _tile(logits, row, code, rows, size)
        noisy = value + _noise(low, high, code)
        here, noisy_here = tl.max(value, 1), tl.max(noisy, 1)
        code_at = tl.where(here > top, first + tl.argmax(value, 1, tie_break_left=True), code_at)
        drawn_at = tl.where(noisy_here > noisy_top, first + tl.argmax(noisy, 1, tie_break_left=True), drawn_at)
        new, noisy_new = tl.maximum(here, top), tl.maximum(noisy_here, noisy_top)
        below = tl.where(value == float("-inf"), 0.0, value - new[:, None])
        share = tl.where(value == float("-inf"), 0.0, tl.exp(below))
        fade = tl.where(top == float("-inf"), 0.0, tl.exp(top - new))
        moved = tl.where(top == float("-inf"), 0.0, top - new)
        weighted = fade * (weighted + moved * total) + tl.sum(share * below, 1)
        total = fade * total + tl.sum(share, 1)
        weight = tl.exp((noisy - noisy_new[:, None]) * inverse)
        noisy_fade = tl.exp((noisy_top - noisy_new) * inverse)
        noisy_total = noisy_fade * noisy_total + tl.sum(weight, 1)
        if not hard:
            right = _vectors(codebook, code, size, column, dim)
            sums = sums * noisy_fade[:, None] + tl.dot(weight, right, input_precision="ieee")
        top, noisy_top = new, noisy_new
    entropy, scale = tl.log(total) - weighted / total, 1 / noisy_total
    inside = row < rows
    tl.store(kl + row, tl.log(size.to(tl.float32)) - entropy, inside)
    tl.store(codes + row, code_at.to(tl.int64), inside)
    tl.store(drawn + row, drawn_at.to(tl.int64), inside)
    tl.store(stats + 4 * row, top + tl.log(total), inside)
    tl.store(stats + 4 * row + 1, entropy, inside)
    tl.store(stats + 4 * row + 2, noisy_top, inside)
    tl.store(stats + 4 * row + 3, scale, inside)
    if not hard:
        where = latents + row[:, None] * dim + column[None, :]
        tl.store(where, sums * scale[:, None], inside[:, None] & (column[None, :] < dim))


@triton.jit
def _weights(logits, keys, stats, row, code, rows, size, inverse):
    low, high = tl.load(keys + 2 * row, row < rows, 0), tl.load(keys + 2 * row + 1, row < rows, 0)
    highest = tl.load(stats + 4 * row + 2, row < rows, 0.0)
    scale = tl.load(stats + 4 * row + 3, row < rows, 0.0)
    noisy = _tile(logits, row, code, rows, size) + _noise(low, high, code)
    return tl.exp((noisy - highest[:, None]) * inverse) * scale[:, None]


@triton.jit
def _logits_gradient(
    logits, codebook, keys, stats, means, up, kl_gradient, out, rows, size, dim, inverse, hard: tl.constexpr,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DIM)
    inside = row < rows
    pulled = tl.load(up + row[:, None] * dim + column[None, :], inside[:, None] & (column[None, :] < dim), 0.0)
    if hard:  # there are no relaxed latents to take the mean from
        mean = tl.zeros((ROWS,), tl.float32)
        for first in range(0, size, CODES):
            code = first + tl.arange(0, CODES)
            right = _vectors(codebook, code, size, column, dim)
            pull = tl.dot(pulled, tl.trans(right), input_precision="ieee")
            mean += tl.sum(_weights(logits, keys, stats, row, code, rows, size, inverse) * pull, 1)
    else:
        mean = tl.load(means + row, inside, 0.0)
    outer = tl.load(kl_gradient + row, inside, 0.0)
    lse, entropy = tl.load(stats + 4 * row, inside, 0.0), tl.load(stats + 4 * row + 1, inside, 0.0)
    for first in range(0, size, CODES):
        code = first + tl.arange(0, CODES)
        right = _vectors(codebook, code, size, column, dim)
        pull = tl.dot(pulled, tl.trans(right), input_precision="ieee")
        weight = _weights(logits, keys, stats, row, code, rows, size, inverse)
        log_q = _tile(logits, row, code, rows, size) - lse[:, None]
        own = tl.where(log_q == float("-inf"), 0.0, tl.exp(log_q) * (log_q + entropy[:, None]))
        result = weight * (pull - mean[:, None]) * inverse + outer[:, None] * own
        tl.store(
            out + row[:, None].to(tl.int64) * size + code[None, :], result, inside[:, None] & (code[None, :] < size)
        )


@triton.jit
def _codebook_gradient(
    logits, keys, stats, up, out, rows, size, dim, inverse, DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr
):
    """A program takes some codes through all rows, so that sums are made in one order."""
    code, column = tl.program_id(0) * CODES + tl.arange(0, CODES), tl.arange(0, DIM)
    sums = tl.zeros((CODES, DIM), tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        inside = (row[:, None] < rows) & (column[None, :] < dim)
        pulled = tl.load(up + row[:, None] * dim + column[None, :], inside, 0.0)
        weight = _weights(logits, keys, stats, row, code, rows, size, inverse)
        sums += tl.dot(tl.trans(weight), pulled, input_precision="ieee")
    tl.store(out + code[:, None] * dim + column[None, :], sums, (code[:, None] < size) & (column[None, :] < dim))
