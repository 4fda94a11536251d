"""The interface of all bottlenecks. A class is abstract (these two) or final (the members)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.ops.counts import code_counts
from smalti.shapes import check_shape

T = TypeVar("T")


class BottleneckOutput(NamedTuple):
    """What a bottleneck makes of the encoder's features."""

    latents: Tensor  # (B, D, h, w): what the decoder sees; carries the gradient
    codes: Tensor | None  # (B, *grid) int64 in [0, K); None when continuous
    kl: Tensor  # (B,) nats per image, KL(q(z|x) || p(z))
    penalties: dict[str, Tensor]  # scalars, UNWEIGHTED, e.g. {"commitment": ..., "codebook": ...}
    log_prob: Tensor | None = None  # (B,) nats, ln q(sampled codes | x) with gradient: only for REINFORCE


class PosteriorSample(NamedTuple):
    """A sample z ~ q(z|x), for bounds on log p(x)."""

    latents: Tensor  # (B, D, h, w)
    log_ratio: Tensor  # (B,) nats per image, log p(z) - log q(z|x)


def flatten_grid(features: Tensor) -> Tensor:
    """Every grid position as a row: (B, D, h, w) to (N, D)."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def unflatten_grid(vectors: Tensor, like: Tensor) -> Tensor:
    """The inverse of `flatten_grid`: (N, D) to (B, D, h, w), with B, h, w of the tensor `like`."""
    batch, _, height, width = like.shape
    return vectors.view(batch, height, width, -1).permute(0, 3, 1, 2)


def fp32_island(tensor: Tensor) -> torch.autocast:
    """A context without autocast: distances, logits and likelihoods are float32 also under autocast."""
    return torch.autocast(tensor.device.type, enabled=False)


class Bottleneck(nn.Module, ABC):
    """Features in, latents out; a member says how, and what it costs."""

    in_channels: int  # of the features that the encoder has to make
    out_channels: int  # D, of the latents that the decoder gets
    has_prior: bool = True  # whether there is a p(z), so that an ELBO exists
    how_gradients_pass: ClassVar[str] = ""  # from the latents to the features, a phrase for people
    estimator: str = ""  # the name of the gradient estimator, where there is a choice

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """The options with which it spends `bits` at each grid position; none where latents are continuous."""
        return {}

    def forward(self, features: Tensor) -> BottleneckOutput:
        """Map features (B, in_channels, h, w) to latents, codes, KL and penalties, in float32 even under autocast.

        In training mode a stochastic member adds noise; in eval mode the result is a function of the features.

        Raises:
            SmaltiError: the features have another shape.
        """
        return self._in_float32(self._forward, features)

    def sample_posterior(self, features: Tensor) -> PosteriorSample:
        """Sample z ~ q(z|x), with its log p(z) - log q(z|x), nats per image.

        Raises:
            SmaltiError: the bottleneck has no prior.
        """
        return self._in_float32(self._sample_posterior, features)

    def _in_float32(self, function: Callable[[Tensor], T], features: Tensor) -> T:
        check_shape(features, "B C h w", "features", C=self.in_channels)
        with fp32_island(features):
            return function(features.float())

    def sample_prior(self, num: int, h: int, w: int) -> Tensor:
        """Sample latents (num, D, h, w) from p(z), with torch's global generator.

        Raises:
            SmaltiError: the bottleneck has no prior.
        """
        with torch.no_grad():
            return self._sample_prior(num, h, w)

    @abstractmethod
    def _forward(self, features: Tensor) -> BottleneckOutput: ...

    @abstractmethod
    def _sample_prior(self, num: int, h: int, w: int) -> Tensor: ...

    @abstractmethod
    def _sample_posterior(self, features: Tensor) -> PosteriorSample: ...

    def anneal(self, step: int, steps: int) -> dict[str, float]:
        """Set what follows a schedule for step `step` of `steps`; reports what was set. Called before the step."""
        return {}

    def update(self) -> dict[str, Tensor]:
        """Learn from the statistics of the forward passes since the last update (codebook averages, restarts).

        Called once after every optimiser step, so gradient accumulation changes nothing; reports what happened.
        """
        return {}


class DiscreteBottleneck(Bottleneck):
    """A bottleneck whose latents are named by integers in [0, K).

    Laws: `encode(f)` equals `forward(f).codes` in eval mode, and `decode(encode(f))` equals `forward(f).latents` there.
    """

    codebook_size: int  # K
    num_codebooks: int = 1  # q, codes at each grid position; where it is more than 1 the codes are (B, q, h, w)
    code_axes: str = "B h w"  # of a batch of codes, see `smalti.shapes`
    prefix_decodable: ClassVar[bool] = False  # whether `decode` takes the first n of the q codes too: (B, n, h, w)

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """The options with which a code has `bits`: K = 2^bits."""
        return {"codebook_size": 2**bits}

    def grid_shape(self, h: int, w: int) -> tuple[int, ...]:
        """The shape of one image's codes for an h x w grid of features."""
        return (h, w)

    def histogram(self, codes: Tensor) -> Tensor:
        """How often each code occurs in codes (B, *grid), for each codebook: (q, K) int64 on their device."""
        each = codes.view(len(codes), self.num_codebooks, -1).transpose(0, 1).flatten(1)
        return torch.stack([code_counts(part, self.codebook_size) for part in each])

    def uniform_kl(self, features: Tensor) -> Tensor:
        """KL of a deterministic code at each position to the uniform distribution: h*w*q*ln K nats, (B,)."""
        positions = features.shape[2] * features.shape[3] * self.num_codebooks
        return features.new_full((len(features),), positions * math.log(self.codebook_size))

    def encode(self, features: Tensor) -> Tensor:
        """The codes (B, *grid) int64 of features (B, in_channels, h, w); deterministic, in every mode."""
        return self._in_float32(self._encode, features)

    def decode(self, codes: Tensor) -> Tensor:
        """The latents (B, D, h, w) of codes (B, *grid).

        Raises:
            SmaltiError: no integers, another number of axes, or a code outside [0, K).
        """
        check_shape(codes, self.code_axes, "codes")
        if codes.is_floating_point() or codes.dtype == torch.bool:
            raise SmaltiError(f"codes must be integers, not {codes.dtype}")
        low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
        if low < 0 or high >= self.codebook_size:
            known = f"[0, {self.codebook_size})"
            raise SmaltiError(f"codes must lie in {known}; these lie in [{low}, {high}]: is this their model?")
        return self._decode(codes.long())

    def _sample_prior(self, num: int, h: int, w: int) -> Tensor:
        return self.decode(torch.randint(0, self.codebook_size, (num, *self.grid_shape(h, w))))

    @abstractmethod
    def _encode(self, features: Tensor) -> Tensor: ...

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor: ...


class DeterministicQuantizer(DiscreteBottleneck):
    """A discrete bottleneck whose posterior is a point mass on one code; a member encodes and decodes."""

    def _sample_posterior(self, features: Tensor) -> PosteriorSample:
        return PosteriorSample(latents=self._decode(self._encode(features)), log_ratio=-self.uniform_kl(features))


class CategoricalPosterior(DiscreteBottleneck):
    """A discrete bottleneck whose posterior is a distribution over the codes, independent at each position."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Unnormalised log q(code | x), (N, K), of features (B, in_channels, h, w)."""

    @property
    @abstractmethod
    def vectors(self) -> Tensor:
        """What each code stands for in the latents, (K, D)."""
