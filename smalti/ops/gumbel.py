"""The Gumbel-Softmax bottleneck as one operation, forward and backward: logits and codebook to latents.

The noise is a function of (seed, row, code), made again in the backward pass: beside the logits and their gradient
nothing of the size of the logits is kept, and by the native kernels nothing of that size is written.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.ops.gumbel_noise import seeded_gumbel
from smalti.ops.native import Kernels, Packed, kernels_for


def gumbel_latents(
    logits: Tensor, codebook: Tensor, temperature: float, *, hard: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw latents from the relaxation of softmax(logits), and the KL of softmax(logits) to the uniform distribution.

    With y = softmax((logits + Gumbel noise) / temperature) the latents are y @ codebook; `hard` rounds y to one code in
    the forward pass only. Gradients reach logits (through y and through the KL) and codebook.

    Shapes:
        logits    (N, K)  float32
        codebook  (K, D)  float32
        latents   (N, D)
        kl        (N,)    nats
        codes     (N,)    int64, the arg max of the logits without noise

    Args:
        logits: unnormalised log probabilities.
        codebook: what each code stands for.
        temperature: positive.
        hard: straight-through Gumbel-Softmax; the codebook's gradient is then that of the drawn code alone.
        seed: of the noise.
    """
    return torch.ops.smalti.gumbel_softmax(logits, codebook, float(temperature), hard, seed)[:3]


class Draw(NamedTuple):
    """How codes are drawn, as in `gumbel_latents`."""

    temperature: float
    hard: bool
    seed: int


class Saved(NamedTuple):
    """What the backward pass needs."""

    logits: Tensor  # (N, K)
    codebook: Tensor  # (K, D)
    latents: Tensor  # (N, D)
    drawn: Tensor  # (N,) int64, the codes that `hard` chose
    stats: Tensor  # (N, 4): see `row_t` in gumbel.h


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # latents, kl, codes; drawn, stats


# ------------------------------------------------------------------ operators


@torch.library.custom_op("smalti::gumbel_softmax", mutates_args=())
def _forward(logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int) -> Outputs:
    native, draw = kernels_for(logits, codebook), Draw(temperature, hard, seed)
    if native is None:
        return _reference(logits, codebook, draw)
    return _native(native, logits.contiguous(), codebook.contiguous(), draw)


@_forward.register_fake
def _(logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int) -> Outputs:
    rows = len(logits)
    codes = logits.new_empty(rows, dtype=torch.int64)
    latents = logits.new_empty(rows, codebook.shape[1])
    return latents, logits.new_empty(rows), codes, torch.empty_like(codes), logits.new_empty(rows, 4)


@torch.library.custom_op("smalti::gumbel_softmax_backward", mutates_args=())
def _backward(
    saved: list[Tensor], latents_gradient: Tensor, kl_gradient: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor]:
    kept, draw = Saved(*saved), Draw(temperature, hard, seed)
    native = kernels_for(kept.logits, kept.codebook)
    if native is None:
        return _reference_gradients(kept, latents_gradient, kl_gradient, draw)
    return _native_gradients(native, kept, latents_gradient, kl_gradient, draw)


@_backward.register_fake
def _(
    saved: list[Tensor], latents_gradient: Tensor, kl_gradient: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(saved[0]), torch.empty_like(saved[1])


def _keep(ctx, inputs, output) -> None:
    logits, codebook, *ctx.draw = inputs
    latents, _, codes, drawn, stats = output
    ctx.save_for_backward(logits, codebook, latents, drawn, stats)
    ctx.mark_non_differentiable(codes, drawn, stats)


def _differentiate(ctx, latents_gradient, kl_gradient, *_):
    backward = torch.ops.smalti.gumbel_softmax_backward
    return *backward(list(ctx.saved_tensors), latents_gradient, kl_gradient, *ctx.draw), None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


# ------------------------------------------------------------------ plain PyTorch, on any device


def _reference(logits: Tensor, codebook: Tensor, draw: Draw) -> Outputs:
    noisy = logits + seeded_gumbel(logits, draw.seed)
    lse, (highest, drawn) = logits.logsumexp(1), noisy.max(1)
    shares = ((noisy - highest[:, None]) / draw.temperature).exp()
    scale = 1 / shares.sum(1)
    log_q = logits - lse[:, None]
    entropy = -(log_q.exp() * log_q).sum(1)
    latents = codebook[drawn] if draw.hard else (shares * scale[:, None]) @ codebook
    stats = torch.stack([lse, entropy, highest, scale], dim=1)
    return latents, math.log(logits.shape[1]) - entropy, logits.argmax(1), drawn, stats


def _reference_gradients(
    saved: Saved, latents_gradient: Tensor, kl_gradient: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    noisy = saved.logits + seeded_gumbel(saved.logits, draw.seed)
    lse, entropy, highest, scale = saved.stats[:, :, None].unbind(1)
    weights, log_q = ((noisy - highest) / draw.temperature).exp() * scale, saved.logits - lse
    pull = latents_gradient @ saved.codebook.T
    gradient = weights * (pull - (weights * pull).sum(1, keepdim=True)) / draw.temperature
    gradient += kl_gradient[:, None] * log_q.exp() * (log_q + entropy)
    return gradient, _of_drawn(saved, latents_gradient) if draw.hard else weights.T @ latents_gradient


def _of_drawn(saved: Saved, latents_gradient: Tensor) -> Tensor:
    """The gradient in the codebook where each latent is one code vector."""
    return torch.zeros_like(saved.codebook).index_add_(0, saved.drawn, latents_gradient)


# ------------------------------------------------------------------ native


def _native(native: Kernels, logits: Tensor, codebook: Tensor, draw: Draw) -> Outputs:
    rows, dim = len(logits), codebook.shape[1]
    latents, kl, stats = logits.new_empty(rows, dim), logits.new_empty(rows), logits.new_empty(rows, 4)
    codes, drawn = torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.int64)
    packed = None if draw.hard else Packed(native, codebook.T, codebook.new_zeros(dim)).panels
    native.gumbel(logits, packed, codebook, latents, kl, codes, drawn, stats, *draw)
    return latents, kl, codes, drawn, stats


def _native_gradients(
    native: Kernels, saved: Saved, latents_gradient: Tensor, kl_gradient: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    logits, (size, dim) = saved.logits.contiguous(), saved.codebook.shape
    up = F.pad(latents_gradient, (0, -dim % native.panel)).contiguous()  # to whole panels
    packed = Packed(native, saved.codebook, saved.codebook.new_zeros(size)).panels
    means = None if draw.hard else (saved.latents * latents_gradient).sum(1)  # of the relaxed weights' pulls
    total = None if draw.hard else up.new_zeros(size, up.shape[1])  # the gradient in the codebook
    gradient = torch.empty_like(logits)
    native.gumbel_backward(logits, packed, up, kl_gradient.contiguous(), saved.stats, means, gradient, total, *draw)
    return gradient, _of_drawn(saved, latents_gradient) if total is None else total[:, :dim]
