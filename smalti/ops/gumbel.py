"""The Gumbel-Softmax bottleneck as one operation, forward and backward: logits and codebook to latents.

The noise is a function of (seed, row, code), made again in the backward pass: beside the logits and their gradient
nothing of the size of the logits is kept, and by the native kernels nothing of that size is written.
"""

import math

import torch
from torch import Tensor

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
    return torch.ops.smalti.gumbel_softmax(logits, codebook, float(temperature), hard, seed)


def gumbel_noise_of(rows: int, size: int, seed: int, like: Tensor) -> Tensor:
    """The noise (rows, size) that `gumbel_latents` adds for this seed, on the device of `like`."""
    native = kernels_for(like)
    if native is not None:
        noise = like.new_empty(rows, size)
        native.gumbel_noise(noise, rows, size, seed)
        return noise
    generator = torch.Generator(like.device).manual_seed(seed)
    uniform = torch.rand(rows, size, generator=generator, device=like.device).clamp_(min=2.0**-24)
    return uniform.log_().neg_().clamp_(min=2.0**-25).log_().neg_()


@torch.library.custom_op("smalti::gumbel_softmax", mutates_args=())
def _forward(
    logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    native = kernels_for(logits, codebook)
    if native is not None:
        return _native_forward(native, logits, codebook, temperature, hard, seed)
    noisy = logits + gumbel_noise_of(len(logits), logits.shape[1], seed, logits)
    log_q = logits.log_softmax(1)
    kl = math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(1)
    latents = codebook[noisy.argmax(1)] if hard else (noisy / temperature).softmax(1) @ codebook
    return latents, kl, logits.argmax(1)


@_forward.register_fake
def _(logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rows = len(logits)
    return logits.new_empty(rows, codebook.shape[1]), logits.new_empty(rows), logits.new_empty(rows, dtype=torch.int64)


@torch.library.custom_op("smalti::gumbel_softmax_backward", mutates_args=())
def _backward(
    logits: Tensor,
    codebook: Tensor,
    latents_gradient: Tensor,
    kl_gradient: Tensor,
    temperature: float,
    hard: bool,
    seed: int,
) -> tuple[Tensor, Tensor]:
    native = kernels_for(logits, codebook)
    if native is not None:
        return _native_backward(native, logits, codebook, latents_gradient, kl_gradient, temperature, hard, seed)
    noisy = logits + gumbel_noise_of(len(logits), logits.shape[1], seed, logits)
    weights, log_q = (noisy / temperature).softmax(1), logits.log_softmax(1)
    pull = latents_gradient @ codebook.T
    logits_gradient = weights * (pull - (weights * pull).sum(1, keepdim=True)) / temperature
    probabilities = log_q.exp()
    centred = log_q - (probabilities * log_q).sum(1, keepdim=True)
    logits_gradient += kl_gradient[:, None] * probabilities * centred
    if hard:
        drawn = torch.zeros_like(codebook).index_add_(0, noisy.argmax(1), latents_gradient)
        return logits_gradient, drawn
    return logits_gradient, weights.T @ latents_gradient


@_backward.register_fake
def _(
    logits: Tensor,
    codebook: Tensor,
    latents_gradient: Tensor,
    kl_gradient: Tensor,
    temperature: float,
    hard: bool,
    seed: int,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(logits), torch.empty_like(codebook)


def _keep(ctx, inputs, output) -> None:
    logits, codebook, ctx.temperature, ctx.hard, ctx.seed = inputs
    ctx.save_for_backward(logits, codebook)
    ctx.mark_non_differentiable(output[2])


def _differentiate(ctx, latents_gradient, kl_gradient, _):
    logits, codebook = ctx.saved_tensors
    gradients = torch.ops.smalti.gumbel_softmax_backward(
        logits, codebook, latents_gradient, kl_gradient, ctx.temperature, ctx.hard, ctx.seed
    )
    return *gradients, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


# ------------------------------------------------------------------ native


def _native_forward(
    native: Kernels, logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    (rows, size), dim = logits.shape, codebook.shape[1]
    logits, codebook = logits.contiguous(), codebook.contiguous()
    latents, kl = logits.new_empty(rows, dim), logits.new_empty(rows)
    codes = torch.empty(rows, dtype=torch.int64)
    packed = codebook if hard else Packed(native, codebook.T, codebook.new_zeros(dim)).panels
    native.gumbel(logits, packed, codebook, latents, kl, codes, rows, size, dim, temperature, seed, hard)
    return latents, kl, codes


def _native_backward(
    native: Kernels,
    logits: Tensor,
    codebook: Tensor,
    latents_gradient: Tensor,
    kl_gradient: Tensor,
    temperature: float,
    hard: bool,
    seed: int,
) -> tuple[Tensor, Tensor]:
    (rows, size), dim = logits.shape, codebook.shape[1]
    logits_gradient, codebook_gradient = torch.empty_like(logits.contiguous()), torch.empty_like(codebook.contiguous())
    packed = Packed(native, codebook, codebook.new_zeros(size)).panels
    native.gumbel_backward(
        logits.contiguous(), packed, latents_gradient.contiguous(), kl_gradient.contiguous(),
        logits_gradient, codebook_gradient, rows, size, dim, temperature, seed, hard,
    )  # fmt: skip
    return logits_gradient, codebook_gradient
