"""The Gumbel-Softmax bottleneck as one operation, forward and backward: logits and codebook to latents.

The noise is a function of (seed, row, code), made again in the backward pass: of the size of the logits only they and
their gradient are kept, and by the native kernels nothing else of that size is written.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.ops.gumbel_noise import seeded_gumbel
from smalti.ops.native import kernels_for


def gumbel_latents(
    logits: Tensor, codebook: Tensor, temperature: float, *, hard: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample latents from the relaxation of softmax(logits), with softmax(logits)' KL to the uniform distribution.

    With y = softmax((logits + Gumbel noise) / temperature) the latents are y @ codebook; `hard` rounds y to one code in
    the forward pass only. Gradients reach logits (through y and through the KL) and codebook.

    Shapes:
        logits    (N, K)  float32, unnormalised log probabilities
        codebook  (K, D)  float32, what each code stands for
        latents   (N, D)
        kl        (N,)    nats
        codes     (N,)    int64, the arg max of the logits without noise

    Args:
        logits: (N, K).
        codebook: (K, D).
        temperature: positive.
        hard: straight-through Gumbel-Softmax; the codebook's gradient is then that of the sampled code alone.
        seed: of the noise.

    Raises:
        SmaltiError: other shapes, K of 0, or a temperature that is not positive.
    """
    return torch.ops.smalti.gumbel_softmax(logits, codebook, float(temperature), hard, seed)[:3]


class Saved(NamedTuple):
    """What the backward pass needs."""

    logits: Tensor  # (N, K)
    codebook: Tensor  # (K, D)
    latents: Tensor  # (N, D)
    sampled: Tensor  # (N,) int64, the codes that `hard` chose
    stats: Tensor  # (N, 4): see `row_t` in gumbel.h


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # latents, kl, codes; sampled, stats


# ------------------------------------------------------------------ operators


@torch.library.custom_op("smalti::gumbel_softmax", mutates_args=())
def _forward(logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int) -> Outputs:
    if not (logits.ndim == codebook.ndim == 2 and len(codebook) == logits.shape[1] > 0):
        shapes = f"{tuple(logits.shape)} and {tuple(codebook.shape)}"
        raise SmaltiError(f"logits and codebook must be (N, K) and (K, D), K above 0, not {shapes}")
    if not temperature > 0:
        raise SmaltiError(f"the temperature must be positive, not {temperature}")
    native = kernels_for(logits, codebook) if codebook.numel() else None
    if native is None:
        return _reference(logits, codebook, temperature, hard, seed)
    logits, codebook = logits.contiguous(), codebook.contiguous()
    outputs = latents, kl, codes, sampled, stats = _empty(logits, codebook)
    packed = None if hard else native.packed(codebook.T)
    native.gumbel(logits, packed, codebook, latents, kl, codes, sampled, stats, temperature, hard, seed)
    return outputs


@_forward.register_fake
def _empty(logits: Tensor, codebook: Tensor, *_) -> Outputs:
    rows, empty = len(logits), logits.new_empty
    codes, sampled = empty(rows, dtype=torch.int64), empty(rows, dtype=torch.int64)
    return empty(rows, codebook.shape[1]), empty(rows), codes, sampled, empty(rows, 4)


@torch.library.custom_op("smalti::gumbel_softmax_backward", mutates_args=())
def _backward(
    saved: list[Tensor], latents_gradient: Tensor, kl_gradient: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor]:
    kept, rule = Saved(*saved), (temperature, hard, seed)
    native = kernels_for(kept.logits, kept.codebook) if kept.codebook.numel() else None
    if native is None:
        return _reference_gradients(kept, latents_gradient, kl_gradient, *rule)
    size, dim = kept.codebook.shape
    up = F.pad(latents_gradient, (0, -dim % native.panel)).contiguous()  # to whole panels
    means = None if hard else (kept.latents * latents_gradient).sum(1)  # of the relaxed weights' pulls
    total = None if hard else up.new_zeros(size, up.shape[1])  # the gradient in the codebook
    logits, kl_gradient = kept.logits.contiguous(), kl_gradient.contiguous()
    gradient, packed = torch.empty_like(logits), native.packed(kept.codebook)
    native.gumbel_backward(logits, packed, up, kl_gradient, kept.stats, means, gradient, total, *rule)
    return gradient, _of_sampled(kept, latents_gradient) if total is None else total[:, :dim]


@_backward.register_fake
def _(saved: list[Tensor], *_) -> tuple[Tensor, Tensor]:
    return torch.empty_like(saved[0]), torch.empty_like(saved[1])


def _keep(ctx, inputs, output) -> None:
    logits, codebook, *ctx.rule = inputs
    latents, _, codes, sampled, stats = output
    ctx.save_for_backward(logits, codebook, latents, sampled, stats)
    ctx.mark_non_differentiable(codes, sampled, stats)


def _differentiate(ctx, latents_gradient, kl_gradient, *_):
    backward = torch.ops.smalti.gumbel_softmax_backward
    return *backward(list(ctx.saved_tensors), latents_gradient, kl_gradient, *ctx.rule), None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


# ------------------------------------------------------------------ plain PyTorch, on any device


def _reference(logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int) -> Outputs:
    noisy = logits + seeded_gumbel(logits, seed)
    lse, (highest, sampled) = logits.logsumexp(1), noisy.max(1)
    shares = ((noisy - highest[:, None]) / temperature).exp()
    scale = 1 / shares.sum(1)
    log_q = logits - lse[:, None]
    entropy = -(log_q.exp() * log_q).sum(1)
    latents = codebook[sampled] if hard else (shares * scale[:, None]) @ codebook
    stats = torch.stack([lse, entropy, highest, scale], dim=1)
    return latents, math.log(logits.shape[1]) - entropy, logits.argmax(1), sampled, stats


def _reference_gradients(
    saved: Saved, latents_gradient: Tensor, kl_gradient: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor]:
    noisy = saved.logits + seeded_gumbel(saved.logits, seed)
    lse, entropy, highest, scale = saved.stats[:, :, None].unbind(1)
    weights, log_q = ((noisy - highest) / temperature).exp() * scale, saved.logits - lse
    pull = latents_gradient @ saved.codebook.T
    gradient = weights * (pull - (weights * pull).sum(1, keepdim=True)) / temperature
    gradient += kl_gradient[:, None] * log_q.exp() * (log_q + entropy)
    return gradient, _of_sampled(saved, latents_gradient) if hard else weights.T @ latents_gradient


def _of_sampled(saved: Saved, latents_gradient: Tensor) -> Tensor:
    """The gradient in the codebook where each latent is one code vector."""
    return torch.zeros_like(saved.codebook).index_add_(0, saved.sampled, latents_gradient)
