"""The bottleneck of the dVAE."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.configs import from_dict
from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import (
    BottleneckOutput,
    DiscreteBottleneck,
    PosteriorSample,
    flatten_grid,
    straight_through,
    unflatten_grid,
)
from smalti.models.bottlenecks.codebook import Codebook
from smalti.ops.nearest import nearest_code
from smalti.schedules import Schedule

TINY = torch.finfo(torch.float32).tiny


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise, -ln(-ln u) with u uniform in (0, 1), of the shape of `like`."""
    return torch.rand_like(like).clamp_(min=TINY).log_().neg_().clamp_(min=TINY).log_().neg_()


class GumbelSoftmax(DiscreteBottleneck):
    """Categorical posterior over K codes, relaxed by Gumbel-Softmax [1, 2] in training: the bottleneck of a dVAE [3].

    In training mode the latents are y @ codebook with y = softmax((logits + Gumbel noise) / temperature), used as it is
    in the forward and the backward pass ("soft", as DALL-E's authors do), or rounded in the forward pass only (`hard`).
    In eval mode the code is the arg max of the logits, without noise.

    Shapes:
        features  (B, in_channels, h, w)  computed in float32
        latents   (B, D, h, w)            float32
        codes     (B, h, w)               int64 in [0, K); in training mode too the arg max of the logits
        kl        (B,)                    nats per image, sum over h, w of ln K - H(q) with q = softmax(logits): the
                                          plain categorical at every temperature, as in [3]; gradient reaches the logits

    Args:
        codebook_size: K, at least 2.
        code_dim: D.
        logits: "distance": -exp(log_scale) |feature - code|^2, so that in_channels is D, the codebook starts from
            k-means on the first batch and dead codes restart; or "convolution": a 1x1 convolution, as in [3].
        in_channels: channels of the features; only for "convolution".
        temperature: of the relaxation, a schedule over optimiser steps.
        sharpness: for "distance", the first value of exp(log_scale) times the mean squared distance to the nearest
            code: the margin in nats by which a feature prefers its code at the start.
        hard: straight-through Gumbel-Softmax instead of the soft relaxation.
        decay: of the moving average of the codes' shares.
        restart_below: restart a code whose share falls below this fraction of 1/K; 0 is never. Only for "distance".

    Differs from [3]: distance logits, k-means and restart are the defaults; `logits="convolution"` is theirs.

    References:
        [1] Jang, Gu, Poole. Categorical Reparameterization with Gumbel-Softmax. 2016. arXiv:1611.01144
        [2] Maddison, Mnih, Teh. The Concrete Distribution. 2016. arXiv:1611.00712
        [3] Ramesh et al. Zero-Shot Text-to-Image Generation. 2021. arXiv:2102.12092, section 2.1 and appendix A.2

    Example:
        >>> bottleneck = GumbelSoftmax(codebook_size=512, code_dim=16).eval()
        >>> bottleneck(torch.randn(2, 16, 8, 8)).codes.shape
        torch.Size([2, 8, 8])
    """

    temperature: Tensor

    def __init__(
        self,
        *,
        codebook_size: int,
        code_dim: int,
        logits: Literal["distance", "convolution"] = "distance",
        in_channels: int | None = None,
        temperature: Schedule | Mapping[str, Any] | None = None,
        sharpness: float = 2.0,
        hard: bool = False,
        decay: float = 0.99,
        restart_below: float = 0.1,
    ):
        super().__init__()
        if logits not in ("distance", "convolution"):
            raise SmaltiError(f"logits must be 'distance' or 'convolution', not {logits!r}")
        if logits == "distance" and in_channels not in (None, code_dim):
            raise SmaltiError(f"distance logits need in_channels = code_dim = {code_dim}, not {in_channels}")
        if isinstance(temperature, Mapping):
            temperature = from_dict(Schedule, temperature, "temperature")
        self.schedule = temperature or Schedule(end=1.0)
        if min(self.schedule(0), self.schedule.end) <= 0:
            raise SmaltiError(f"the temperature must stay positive; it ends at {self.schedule.end}")
        self.codebook_size, self.in_channels, self.out_channels = codebook_size, in_channels or code_dim, code_dim
        self.hard, self.sharpness, self.by_distance = hard, sharpness, logits == "distance"
        self.codebook = Codebook(
            codebook_size,
            code_dim,
            learning="gradient",
            decay=decay,
            restart_below=restart_below if self.by_distance else 0.0,
        )
        if self.by_distance:
            self.log_scale = nn.Parameter(torch.zeros(()))
        else:
            self.to_logits = nn.Conv2d(self.in_channels, codebook_size, 1)
        self.register_buffer("temperature", torch.tensor(self.schedule(0)), persistent=True)

    def anneal(self, step: int) -> dict[str, float]:
        """Set the temperature for optimiser step `step`."""
        temperature = self.schedule(step)
        self.temperature.fill_(temperature)
        return {"temperature": temperature}

    def update(self) -> dict[str, float]:
        """Restart dead codes; see `Codebook.update`."""
        return self.codebook.update()

    def _logits(self, features: Tensor) -> Tensor:
        """Unnormalised log q(code | x), (N, K)."""
        if not self.by_distance:
            return self.to_logits(features).permute(0, 2, 3, 1).reshape(-1, self.codebook_size)
        flat, vectors = flatten_grid(features), self.codebook.vectors
        # |f - c|^2 without |f|^2, which is the same for all codes and so without effect on the softmax
        return self.log_scale.exp() * torch.addmm(-vectors.square().sum(1), flat, vectors.T, alpha=2)

    @torch.no_grad()
    def _initialize(self, features: Tensor) -> None:
        if self.by_distance and not self.codebook.ready:
            flat = flatten_grid(features)
            self.codebook.initialize(flat)
            vectors = self.codebook.vectors
            nearest = vectors[nearest_code(flat, vectors)]
            error = (flat - nearest).square().sum(1).mean().clamp(min=1e-12)
            self.log_scale.copy_((self.sharpness / error).log())

    def _forward(self, features: Tensor) -> BottleneckOutput:
        batch, _, height, width = features.shape
        if self.training:
            self._initialize(features)
        logits = self._logits(features)
        log_q = logits.log_softmax(1)
        entropy = -(log_q.exp() * log_q).sum(1)
        codes = logits.detach().argmax(1)
        if self.training:
            self.codebook.observe(flatten_grid(features.detach()), codes)
            noisy = logits + gumbel_noise(logits)
            weights = (noisy / self.temperature).softmax(1)
            if self.hard:
                weights = straight_through(F.one_hot(noisy.argmax(1), self.codebook_size).to(weights), weights)
            latents = weights @ self.codebook.vectors
        else:
            latents = F.embedding(codes, self.codebook.vectors)
        return BottleneckOutput(
            latents=unflatten_grid(latents, features),
            codes=codes.view(batch, height, width),
            kl=(math.log(self.codebook_size) - entropy).view(batch, -1).sum(1),
            penalties={},
        )

    def _sample(self, features: Tensor) -> PosteriorSample:
        batch, _, height, width = features.shape
        logits = self._logits(features)
        codes = (logits + gumbel_noise(logits)).argmax(1)
        log_q = logits.log_softmax(1).gather(1, codes[:, None])
        log_ratio = (-math.log(self.codebook_size) - log_q).view(batch, -1).sum(1)
        return PosteriorSample(latents=self._decode(codes.view(batch, height, width)), log_ratio=log_ratio)

    def _encode(self, features: Tensor) -> Tensor:
        batch, _, height, width = features.shape
        return self._logits(features).argmax(1).view(batch, height, width)

    def _decode(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook.vectors).permute(0, 3, 1, 2)
