"""Standard Gumbel noise: the arg max of logits plus this noise is a sample of their softmax."""

import torch
from torch import Tensor

from smalti.ops import randomness
from smalti.ops.native import kernels_for

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, as in `gumbel.h`


def standard_gumbel(like: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """-ln(-ln u) with u uniform in [0, 1), of the shape and on the device of `like`, and of its type unless given."""
    if generator is None and dtype is None:  # (..., rows, codes), of which other processes may have more
        uniform = randomness.uniform(*like.shape, like=like, axis=max(0, like.ndim - 2))
    else:
        uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=dtype or like.dtype)
    tiny = torch.finfo(uniform.dtype).tiny  # u may be 0
    return uniform.clamp_(min=tiny).log_().neg_().clamp_(min=tiny).log_().neg_()


def seeded_gumbel(like: Tensor, seed: int) -> Tensor:
    """Noise of the shape (rows, columns) and on the device of `like` that is a function of (seed, row, column).

    The native kernels make it again wherever they need it (`gumbel.h`); elsewhere it is that of a generator.
    """
    native = kernels_for(like)
    if native is None:
        return standard_gumbel(like, torch.Generator(like.device).manual_seed(seed))
    noise = like.new_empty(like.shape)
    native.gumbel_noise(noise, seed)
    return noise


def at_row(seed: int, row: int) -> int:
    """The seed whose noise begins as that of `seed` goes on from `row`: a batch in parts has the noise of the whole.

    That is so of the native kernels; other generators give noise of its own to each part.
    """
    seed = (seed + row * GOLDEN) % (1 << 64)
    return seed - (1 << 64) if seed >> 63 else seed
