"""The Gumbel-Softmax bottleneck as one operation, forward and backward: logits and codebook to latents.

The noise is a function of (seed, row, code), made again in the backward pass: beside the logits and their gradient
nothing of the size of the logits is kept, and by the native kernels nothing of that size is written.
"""

import math

import torch
import torch.nn.functional as F
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
    return torch.ops.smalti.gumbel_softmax(logits, codebook, float(temperature), hard, seed)[:3]


def gumbel_noise_of(rows: int, size: int, seed: int, like: Tensor) -> Tensor:
    """The noise (rows, size) that `gumbel_latents` adds for this seed, on the device of `like`."""
    native = kernels_for(like)
    if native is not None:
        noise = like.new_empty(rows, size)
        native.gumbel_noise(noise, seed)
        return noise
    generator = torch.Generator(like.device).manual_seed(seed)
    uniform = torch.rand(rows, size, generator=generator, device=like.device).clamp_(min=2.0**-24)
    return uniform.log_().neg_().clamp_(min=2.0**-25).log_().neg_()


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # latents, kl, codes, and what the backward pass needs:
# drawn (N,) int64, the codes that `hard` chose; stats (N, 4): see `row_t` in gumbel.h


@torch.library.custom_op("smalti::gumbel_softmax", mutates_args=())
def _forward(
    logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    native = kernels_for(logits, codebook)
    if native is not None:
        return _native_forward(native, logits, codebook, temperature, hard, seed)
    noisy = logits + gumbel_noise_of(len(logits), logits.shape[1], seed, logits)
    lse, (highest, drawn) = logits.logsumexp(1), noisy.max(1)
    shares = ((noisy - highest[:, None]) / temperature).exp()
    scale = 1 / shares.sum(1)
    log_q = logits - lse[:, None]
    entropy = -(log_q.exp() * log_q).sum(1)
    latents = codebook[drawn] if hard else (shares * scale[:, None]) @ codebook
    stats = torch.stack([lse, entropy, highest, scale], dim=1)
    return latents, math.log(logits.shape[1]) - entropy, logits.argmax(1), drawn, stats


@_forward.register_fake
def _(logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int) -> Outputs:
    rows = len(logits)
    codes = logits.new_empty(rows, dtype=torch.int64)
    latents = logits.new_empty(rows, codebook.shape[1])
    return latents, logits.new_empty(rows), codes, torch.empty_like(codes), logits.new_empty(rows, 4)


@torch.library.custom_op("smalti::gumbel_softmax_backward", mutates_args=())
def _backward(
    logits: Tensor,
    codebook: Tensor,
    latents: Tensor,
    drawn: Tensor,
    stats: Tensor,
    latents_gradient: Tensor,
    kl_gradient: Tensor,
    temperature: float,
    hard: bool,
    seed: int,
) -> tuple[Tensor, Tensor]:
    native = kernels_for(logits, codebook)
    if native is not None:
        means = (latents * latents_gradient).sum(1)  # of the relaxed weights' pulls; not used where `hard`
        options = (temperature, hard, seed)
        gradients = _native_backward(native, logits, codebook, stats, means, latents_gradient, kl_gradient, *options)
    else:
        noisy = logits + gumbel_noise_of(len(logits), logits.shape[1], seed, logits)
        lse, entropy, highest, scale = stats[:, :, None].unbind(1)
        weights, log_q = ((noisy - highest) / temperature).exp() * scale, logits - lse
        pull = latents_gradient @ codebook.T
        logits_gradient = weights * (pull - (weights * pull).sum(1, keepdim=True)) / temperature
        logits_gradient += kl_gradient[:, None] * log_q.exp() * (log_q + entropy)
        gradients = logits_gradient, codebook if hard else weights.T @ latents_gradient
    if hard:
        return gradients[0], torch.zeros_like(codebook).index_add_(0, drawn, latents_gradient)
    return gradients


@_backward.register_fake
def _(
    logits: Tensor,
    codebook: Tensor,
    latents: Tensor,
    drawn: Tensor,
    stats: Tensor,
    latents_gradient: Tensor,
    kl_gradient: Tensor,
    temperature: float,
    hard: bool,
    seed: int,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(logits), torch.empty_like(codebook)


def _keep(ctx, inputs, output) -> None:
    logits, codebook, ctx.temperature, ctx.hard, ctx.seed = inputs
    latents, _, codes, drawn, stats = output
    ctx.save_for_backward(logits, codebook, latents, drawn, stats)
    ctx.mark_non_differentiable(codes, drawn, stats)


def _differentiate(ctx, latents_gradient, kl_gradient, *_):
    gradients = torch.ops.smalti.gumbel_softmax_backward(
        *ctx.saved_tensors, latents_gradient, kl_gradient, ctx.temperature, ctx.hard, ctx.seed
    )
    return *gradients, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


# ------------------------------------------------------------------ native


def _native_forward(
    native: Kernels, logits: Tensor, codebook: Tensor, temperature: float, hard: bool, seed: int
) -> Outputs:
    rows, dim = len(logits), codebook.shape[1]
    logits, codebook = logits.contiguous(), codebook.contiguous()
    latents, kl, stats = logits.new_empty(rows, dim), logits.new_empty(rows), logits.new_empty(rows, 4)
    codes, drawn = torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.int64)
    packed = None if hard else Packed(native, codebook.T, codebook.new_zeros(dim)).panels
    native.gumbel(logits, packed, codebook, latents, kl, codes, drawn, stats, temperature, seed, hard)
    return latents, kl, codes, drawn, stats


def _native_backward(
    native: Kernels,
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
    """The gradient in the logits and, unless `hard`, in the codebook."""
    size, dim = codebook.shape
    logits = logits.contiguous()
    up = F.pad(latents_gradient, (0, -dim % native.panel)).contiguous()  # to whole panels
    logits_gradient = torch.empty_like(logits)
    codebook_gradient = None if hard else up.new_zeros(size, up.shape[1])
    packed = Packed(native, codebook, codebook.new_zeros(size)).panels
    native.gumbel_backward(
        logits, packed, up, kl_gradient.contiguous(), stats, means, logits_gradient, codebook_gradient,
        temperature, seed, hard,
    )  # fmt: skip
    return logits_gradient, codebook if codebook_gradient is None else codebook_gradient[:, :dim]
