"""The interface of all bottlenecks. A class is abstract (these two) or final (the members)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.configs import effective
from smalti.errors import SmaltiError
from smalti.models.bottlenecks.grids import GRIDS, NOTHING, Kept, Layout, check_tensor, positive_axis
from smalti.models.bottlenecks.layer import Layer
from smalti.ops.counts import code_counts, extremes
from smalti.shapes import check_shape

T = TypeVar("T")
PARALLEL = 1e-4  # sine of the angle below which a great circle is a straight line


class BottleneckOutput(NamedTuple):
    """What a bottleneck makes of the encoder's features."""

    latents: Tensor  # (B, D, h, w), of the features' type: what the decoder sees; carries the gradient
    codes: Tensor | None  # (B, *grid) int64 in [0, K), -1 where a mask leaves out; None when continuous
    kl: Tensor  # (B,) nats per image, KL(q(z|x) || p(z))
    penalties: dict[str, Tensor]  # scalars, UNWEIGHTED, e.g. {"commitment": ..., "codebook": ...}
    log_prob: Tensor | None = None  # (B,) nats, ln q(sampled codes | x) with gradient: only for REINFORCE


class PosteriorSample(NamedTuple):
    """A sample z ~ q(z|x), for bounds on log p(x) and for pictures around an image."""

    latents: Tensor  # (B, D, h, w)
    log_ratio: Tensor  # (B,) nats per image, log p(z) - log q(z|x)
    codes: Tensor | None = None  # (B, *grid) int64; None when continuous


class InWords(NamedTuple):
    """A bottleneck in phrases for people: a column of the table that `smalti compare` begins with."""

    features: str = "features at each position of a grid"  # what the encoder gives
    latent_space: str = "continuous"
    latents: str = "the latents"  # what the decoder gets
    loss: str = "distortion, and what the bottleneck adds"
    purpose: str = "as its recipe says"
    generation: str = "by p(z), where it has one"
    gradient_stop: str = "nowhere"  # where the gradient would stop if nothing were done about it


def fp32_island(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast: distances, logits and likelihoods are float32 also under autocast."""
    if tensor.is_meta or torch.compiler.is_exporting():  # which have none, or cannot save one around a loop
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


class Bottleneck(Layer, ABC):
    """Features in, latents out; a member says how, and what it costs."""

    in_channels: int  # of the features that the encoder has to make
    out_channels: int  # D, of the latents that the decoder gets
    has_prior: bool = True  # whether there is a p(z), so that an ELBO exists
    random_posterior: ClassVar[bool] = True  # whether q(z|x) is a distribution; otherwise it is one point
    how_gradients_pass: ClassVar[str] = ""  # from the latents to the features, a phrase for people
    estimator: str = ""  # the name of the gradient estimator, where there is a choice
    in_words: ClassVar[InWords] = InWords()
    relaxes: bool = False  # whether latents are softer in training than codes, by a temperature: see `set_temperature`

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """The options with which it spends `bits` at each grid position; none where latents are continuous."""
        return {}

    def forward(self, features: Tensor, mask: Tensor | None = None, *, channel_axis: int = 1) -> BottleneckOutput:
        """Map features to latents, codes, KL and penalties, which are computed in float32 whatever their type.

        In training mode a stochastic member adds noise; in eval mode the result is a function of the features. The
        latents have the features' type and a gradient to them in both modes; kl and penalties are float32.

        Args:
            features: (B, in_channels, h, w), or (B, in_channels, T), or (B, in_channels, t, h, w).
            mask: (B, *grid) bool, True where a position counts. The others are left out of codes (-1), latents (0),
                kl, penalties and statistics: the result is that of the positions kept, one by one.
            channel_axis: where the channels of features and latents stand: -1 for sequences (B, T, in_channels).

        Raises:
            SmaltiError: features or a mask of another shape or type.
        """
        layout = Layout.of(features, self.in_channels, channel_axis)
        planar = layout.planar(features)
        kept = layout.kept(planar, mask)
        with fp32_island(planar):
            output = self._forward(planar.float()) if kept is None else self._masked(planar.float(), kept)
        latents = layout.latents(output.latents).to(features.dtype)
        return output._replace(latents=latents, codes=None if output.codes is None else layout.codes(output.codes))

    def _masked(self, features: Tensor, kept: Kept) -> BottleneckOutput:
        """The output for features (B, in_channels, h, w) of which some positions are kept."""
        output = self._forward_kept(kept.of(features), kept)
        penalties = output.penalties
        if not len(kept.places):  # the mean over nothing is 0, with a gradient of 0 for every parameter
            penalties = {name: penalty.nan_to_num() for name, penalty in penalties.items()}
        return BottleneckOutput(
            latents=kept.latents(output.latents),
            codes=None if output.codes is None else kept.codes(output.codes),
            kl=kept.sums(output.kl),
            penalties=penalties,
            log_prob=None if output.log_prob is None else kept.sums(output.log_prob),
        )

    def _forward_kept(self, features: Tensor, kept: Kept) -> BottleneckOutput:
        """`_forward` of the positions that a mask keeps, (n, in_channels, 1, 1), each an image of its own.

        A member overrides it where the image or the place of a position makes a difference.
        """
        return self._forward(features)

    def sample_posterior(self, features: Tensor, temperature: float = 1.0) -> PosteriorSample:
        """Sample z ~ q(z|x), with its log p(z) - log q(z|x), nats per image.

        Args:
            features: (B, in_channels, h, w).
            temperature: scales the standard deviation of q(z|x), or divides the logits of codes: at 0 it is the mean,
                or the most likely codes. The log ratio is that of p and q themselves.

        Raises:
            SmaltiError: the bottleneck has no prior, or a temperature that is negative or has no effect.
        """
        _check_temperature(temperature)
        sample = self._in_float32(lambda values: self._sample_posterior(values, temperature), features)
        return sample._replace(latents=sample.latents.to(features.dtype))

    def _in_float32(self, function: Callable[[Tensor], T], features: Tensor) -> T:
        check_tensor(features, "features")
        check_shape(features, "B C h w", "features", C=self.in_channels)
        with fp32_island(features):
            return function(features.float())

    def sample_prior(self, num: int, h: int, w: int, temperature: float = 1.0) -> Tensor:
        """Sample latents (num, D, h, w) from p(z), with torch's global generator.

        Args:
            num: how many.
            h: rows of the grid.
            w: columns of the grid.
            temperature: as of `sample_posterior`.

        Raises:
            SmaltiError: the bottleneck has no prior, or a temperature that is negative or has no effect.
        """
        _check_temperature(temperature)
        with torch.no_grad():
            return self._sample_prior(num, h, w, temperature).to(self.dtype)

    def interpolate(self, start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
        """The latents (T, D, h, w) on the way from one image's features to another's; in eval mode.

        They are the latents of features on the straight line between the two, so that each is one which the bottleneck
        gives to some features. Of a discrete member that is a grid of codes: a half-way code is the code of the
        half-way feature.

        Args:
            start: features (in_channels, h, w) of the image at share 0.
            end: features of the image at share 1.
            shares: (T,) in [0, 1], how much of the way is behind each.
        """
        return self(torch.lerp(start, end, shares.to(start).view(-1, 1, 1, 1))).latents

    @abstractmethod
    def _forward(self, features: Tensor) -> BottleneckOutput: ...

    @abstractmethod
    def _sample_prior(self, num: int, h: int, w: int, temperature: float) -> Tensor: ...

    @abstractmethod
    def _sample_posterior(self, features: Tensor, temperature: float) -> PosteriorSample: ...

    def anneal(self, step: int, steps: int) -> dict[str, float]:
        """Set what follows a schedule for step `step` of `steps`; reports what was set. Called before the step."""
        return {}

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of the relaxation, for measurements at others than the last.

        Raises:
            SmaltiError: nothing is relaxed.
        """
        raise SmaltiError("this bottleneck has no temperature")

    def update(self) -> dict[str, Tensor]:
        """Learn from the statistics of the forward passes since the last update (codebook averages, restarts).

        Once after every optimiser step, so gradient accumulation changes nothing; reports what happened. A loop that
        does not call it need not: see `Codebook`.
        """
        return {}


def _check_temperature(temperature: float) -> None:
    if not 0 <= temperature < math.inf:
        raise SmaltiError(f"a sampling temperature must be 0 or more, not {temperature}")


class GaussianPosterior(Bottleneck):
    """A continuous bottleneck with q(z|x) = N(mean, diag variance) and p(z) = N(0, I)."""

    @abstractmethod
    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the ln variance of q(z|x), each (B, D, h, w), of features (B, in_channels, h, w)."""

    def interpolate(self, start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
        """The latents (T, D, h, w) on the way between two posterior means, see `Bottleneck.interpolate`.

        The way is spherical: both weights are sines of the angle that is left. Half-way between two independent
        vectors of many dimensions a straight line has lost half of their variance, and pictures fade; the great circle
        keeps it [1].

        References:
            [1] White. Sampling Generative Networks. 2016. arXiv:1609.04468, section 3.1
        """
        first, last = self._in_float32(lambda features: self.posterior(features)[0], torch.stack([start, end]))
        shares = shares.to(first).view(-1, 1, 1, 1)
        angle = F.cosine_similarity(first.flatten().double(), last.flatten().double(), dim=0).clamp(-1, 1).acos()
        if angle.sin() < PARALLEL:
            return torch.lerp(first, last, shares).to(start.dtype)
        weights = [((way * angle).sin() / angle.sin()).float() for way in (1 - shares, shares)]
        return (weights[0] * first + weights[1] * last).to(start.dtype)


class DiscreteBottleneck(Bottleneck):
    """A bottleneck whose latents are named by integers in [0, K).

    Laws: `encode(f)` equals `forward(f).codes` in eval mode, and `decode(encode(f))` equals `forward(f).latents` there.
    """

    codebook_size: int  # K
    num_codebooks: int = 1  # q, codes at each grid position; where it is more than 1 the codes are (B, q, h, w)
    in_words = InWords(
        features="a vector at each position, not yet a code",
        latent_space="discrete: a grid of codes, each one of K",
        latents="what each code stands for",
        loss="distortion; the KL to a uniform p(z) is a constant",
        purpose="images as few whole numbers: compression, and the input of a prior",
        generation="by a prior trained on its codes; codes from p(z) know nothing of each other",
        gradient_stop="at the choice of a code: whole numbers carry no gradient",
    )
    code_axes: str = "B h w"  # of a batch of codes, see `smalti.shapes`; the grid's, the last two, may be others
    prefix_decodable: ClassVar[bool] = False  # whether `decode` takes the first n of the q codes too: (B, n, h, w)

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """The options with which a code has `bits`: K = 2^bits."""
        return {"codebook_size": 2**bits}

    def grid_shape(self, h: int, w: int) -> tuple[int, ...]:
        """The shape of one image's codes for an h x w grid of features."""
        return (h, w)

    def histogram(self, codes: Tensor) -> Tensor:
        """How often each code occurs in codes (B, *grid), for each codebook: (q, K) int64 on their device.

        Positions that a mask left out are not counted.
        """
        each = codes.long().reshape(len(codes), self.num_codebooks, math.prod(codes.shape[1:]) // self.num_codebooks)
        counts = [code_counts(part.flatten() - NOTHING, self.codebook_size - NOTHING) for part in each.unbind(1)]
        return torch.stack(counts)[:, -NOTHING:]

    def uniform_kl(self, features: Tensor) -> Tensor:
        """KL of a deterministic code at each position to the uniform distribution: h*w*q*ln K nats, (B,)."""
        positions = features.shape[2] * features.shape[3] * self.num_codebooks
        return features.new_full(features.shape[:1], positions * math.log(self.codebook_size))

    def encode(self, features: Tensor, mask: Tensor | None = None, *, channel_axis: int = 1) -> Tensor:
        """The codes (B, *grid) int64 of features; deterministic, in every mode. Arguments as of `forward`."""
        layout = Layout.of(features, self.in_channels, channel_axis)
        planar = layout.planar(features)
        kept = layout.kept(planar, mask)
        with fp32_island(planar):
            if kept is None:
                return layout.codes(self._encode(planar.float()))
            return layout.codes(kept.codes(self._encode(kept.of(planar.float()))))

    def decode(self, codes: Tensor, mask: Tensor | None = None, *, channel_axis: int = 1) -> Tensor:
        """The latents of codes (B, *grid), in the type `dtype`.

        Args:
            codes: integers of any type in [0, K).
            mask: as of `forward`: where it is False the latents are 0, whatever the code.
            channel_axis: as of `forward`.

        Raises:
            SmaltiError: no integers, another number of axes, or a code outside [0, K).
        """
        layout, codes = self._on_grid(codes, channel_axis)
        if mask is not None:
            mask = layout.planar_mask(mask, len(codes)).to(codes.device)
            codes = codes.where(mask.view(len(codes), *[1] * (codes.ndim - 3), *layout.sides), 0)
        low, high = extremes(codes)
        if low < 0 or high >= self.codebook_size:
            known = f"[0, {self.codebook_size})"
            remedy = "is this their model?" if low != NOTHING else "-1 is no code, give decode the mask too"
            raise SmaltiError(f"codes must lie in {known}; these lie in [{low}, {high}]: {remedy}")
        latents = self._decode(codes)
        return layout.latents(latents if mask is None else latents * mask[:, None]).to(self.dtype)

    @torch.no_grad()
    def decode_each(self) -> Tensor:
        """The latents of every code, (q, K, D) float32: of several at a position the others are code 0 meanwhile."""
        codes = torch.arange(self.codebook_size, device=self._device)
        axes = self.grid_shape(1, 1)
        alone = codes.new_zeros(self.num_codebooks, self.codebook_size, self.num_codebooks)
        for index, part in enumerate(alone):
            part[:, index] = codes
        latents = [self.decode(part.view(self.codebook_size, *axes)) for part in alone]
        return torch.stack(latents).float().flatten(2)

    def _on_grid(self, codes: Tensor, channel_axis: int) -> tuple[Layout, Tensor]:
        """The layout of codes (B, *grid), and the codes as int64 (B, ..., h, w)."""
        check_tensor(codes, "codes")
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise SmaltiError(f"codes must be integers, not {codes.dtype}")
        before = self.code_axes.removesuffix(" h w")
        letters = GRIDS.get(codes.ndim - len(before.split()), "h w")
        check_shape(codes, f"{before} {letters}" if before != self.code_axes else before, "codes")
        grid = tuple(codes.shape[-len(letters.split()) :])
        layout = Layout(grid, positive_axis(channel_axis, len(grid)))
        return layout, codes.long().reshape(*codes.shape[: -len(grid)], *layout.sides)

    def sample_codes(self, num: int, h: int, w: int, temperature: float = 1.0) -> Tensor:
        """Sample codes (num, *grid) from p(z), uniform unless a member says otherwise.

        Raises:
            SmaltiError: a temperature that is negative, or other than 1 where p(z) is uniform.
        """
        _check_temperature(temperature)
        with torch.no_grad():
            return self._sample_codes(num, h, w, temperature)

    def _sample_codes(self, num: int, h: int, w: int, temperature: float) -> Tensor:
        effective(False, "on a uniform p(z)", temperature=(None if temperature == 1 else temperature, 1.0))
        return torch.randint(0, self.codebook_size, (num, *self.grid_shape(h, w)))

    def _sample_prior(self, num: int, h: int, w: int, temperature: float) -> Tensor:
        codes = self._sample_codes(num, h, w, temperature)
        return self.decode(codes.to(self._device))

    @property
    def _device(self) -> torch.device:
        return next(chain(self.buffers(), self.parameters()), torch.empty(0)).device

    @abstractmethod
    def _encode(self, features: Tensor) -> Tensor: ...

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor: ...


class DeterministicQuantizer(DiscreteBottleneck):
    """A discrete bottleneck whose posterior is a point mass on one code; a member encodes and decodes."""

    random_posterior = False

    def _sample_posterior(self, features: Tensor, temperature: float) -> PosteriorSample:
        effective(False, "on a q(z|x) of one point", temperature=(None if temperature == 1 else temperature, 1.0))
        codes = self._encode(features)
        return PosteriorSample(self._decode(codes), -self.uniform_kl(features), codes)


class CategoricalPosterior(DiscreteBottleneck):
    """A discrete bottleneck whose posterior is a distribution over the codes, independent at each position."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Unnormalised log q(code | x), (N, K), of features (B, in_channels, h, w)."""

    @property
    @abstractmethod
    def vectors(self) -> Tensor:
        """What each code stands for in the latents, (K, D)."""
