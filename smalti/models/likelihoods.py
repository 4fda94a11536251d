"""p(x | z): what the decoder's output means, in nats with true normalisers.

Every member gives two numbers for an image: `nll`, minus the log density of its values in [0, 1] (what is trained), and
`bits`, the exact cost in bits of its 8-bit pixels: the probability mass of each pixel's interval of width 1/255, with
the two outermost intervals reaching to infinity, so that the 256 masses sum to one. Members whose values are discrete
anyway (Bernoulli, the logistic mixture) have one number for both. Bits per dim are made from `bits` only.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.configs import Family
from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import fp32_island
from smalti.ranges import Count, Positive, Share, Size
from smalti.shapes import check_shape

LEVELS = 256
HALF_BIN = 0.5 / (LEVELS - 1)
SMALLEST_SCALE = HALF_BIN  # a density in [0, 1] may not get narrower than half a grey level


class Likelihood(nn.Module, ABC):
    """The distribution of an image given the decoder's output."""

    channels: int  # C, of the images
    num_parameters: int  # channels of the decoder's output

    def nll(self, parameters: Tensor, images: Tensor) -> Tensor:
        """-log p(x|z), nats per image (B,), of images (B, C, H, W) in [0, 1] given the decoder's output (B, P, H, W).

        Summed over C, H, W; differentiable; float32 under autocast.
        """
        self._check(parameters, images)
        with fp32_island(parameters):
            return -self._log_prob(parameters.float(), images.float()).flatten(1).sum(1)

    def bits(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Cost of the images as 8-bit pixels, bits per image (B,): minus log2 of the probability mass; in float64."""
        self._check(parameters, images)
        with fp32_island(parameters):
            return -self._log_mass(parameters.double(), images.double()).flatten(1).sum(1) / math.log(2)

    def mean(self, parameters: Tensor, *, clamp: bool = True) -> Tensor:
        """The reconstruction that a viewer sees, (B, C, H, W) float32 in [0, 1].

        Without `clamp` some values lie outside, and all have a gradient.
        """
        check_shape(parameters, "B P H W", "parameters", P=self.num_parameters)
        with fp32_island(parameters):
            mean = self._mean(parameters.float())
            return mean.clamp(0, 1) if clamp else mean

    def _check(self, parameters: Tensor, images: Tensor) -> None:
        check_shape(images, "B C H W", "images", C=self.channels)
        _, _, height, width = images.shape
        check_shape(parameters, "B P H W", "parameters", P=self.num_parameters, B=len(images), H=height, W=width)

    @abstractmethod
    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log density, nats, of any shape (B, ...)."""

    @abstractmethod
    def _log_mass(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log mass of each pixel's interval, nats, of any shape (B, ...)."""

    @abstractmethod
    def _mean(self, parameters: Tensor) -> Tensor:
        """The mean of the images, unclamped."""


class Bernoulli(Likelihood):
    """Independent bits: log p = x ln p + (1 - x) ln(1 - p) with p = sigmoid(parameters).

    Normalised for binary images only; with grey values in between it is the usual cross-entropy, which is no
    likelihood, and `bits` refuses.
    """

    def __init__(self, *, channels: Size):
        super().__init__()
        self.channels = self.num_parameters = channels

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        return images * parameters - F.softplus(parameters)

    def _log_mass(self, parameters: Tensor, images: Tensor) -> Tensor:
        if not torch.all((images == 0) | (images == 1)):
            raise SmaltiError("a Bernoulli has no bits of grey images; binarize them or use another likelihood")
        return self._log_prob(parameters, images)

    def _mean(self, parameters: Tensor) -> Tensor:
        return parameters.sigmoid()


class LocationScale(Likelihood):
    """A density with a location for every value and a scale that is fixed, learnt (one number) or predicted.

    The location is 1/2 plus the decoder's output, in units of the pixel range. A scale is kept above half a grey level,
    without which flat backgrounds would have an infinite density.

    Args:
        channels: C.
        scale: a number in units of [0, 1]; "learned", one number for all values (the sigma-VAE, arXiv:2006.13202); or
            "predicted", a second set of C channels of the decoder.
    """

    def __init__(self, *, channels: Size, scale: Positive | Literal["learned", "predicted"] = "learned"):
        super().__init__()
        if isinstance(scale, str) and scale not in ("learned", "predicted"):
            raise SmaltiError(f"scale must be a number, 'learned' or 'predicted', not {scale!r}")
        if not isinstance(scale, str) and scale < SMALLEST_SCALE:
            raise SmaltiError(f"scale must be at least half a grey level, {SMALLEST_SCALE:.4f}, not {scale}")
        self.channels, self.predicted = channels, scale == "predicted"
        self.num_parameters = channels * (2 if self.predicted else 1)
        first = 0.2 if isinstance(scale, str) else scale
        raw = torch.tensor(math.log(math.expm1(math.log(first / SMALLEST_SCALE) + 1e-6)))
        if scale == "learned":
            self.raw_scale = nn.Parameter(raw)
        else:
            self.register_buffer("raw_scale", raw)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Location and log scale, broadcastable to (B, C, H, W)."""
        raw = self.raw_scale.to(parameters.dtype)
        if self.predicted:
            parameters, offset = parameters.chunk(2, dim=1)
            raw = raw + offset
        return parameters + 0.5, F.softplus(raw) + math.log(SMALLEST_SCALE)

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        location, log_scale = self._split(parameters)
        return self._log_density((images - location) * torch.exp(-log_scale)) - log_scale

    def _log_mass(self, parameters: Tensor, images: Tensor) -> Tensor:
        location, log_scale = self._split(parameters)
        lower, upper = ((edge - location) / log_scale.exp() for edge in open_bin(images))
        return log_interval(self._log_cdf, lower, upper)

    def _mean(self, parameters: Tensor) -> Tensor:
        return self._split(parameters)[0]

    @abstractmethod
    def _log_density(self, standard: Tensor) -> Tensor:
        """Log density of the standard distribution (location 0, scale 1)."""

    @abstractmethod
    def _log_cdf(self, standard: Tensor) -> Tensor:
        """Log of the standard distribution function."""


class Gaussian(LocationScale):
    """Independent normals; with a learnt scale the maximum-likelihood form of the mean squared error."""

    def _log_density(self, standard: Tensor) -> Tensor:
        return -(standard.square() + math.log(2 * math.pi)) / 2

    def _log_cdf(self, standard: Tensor) -> Tensor:
        return torch.special.log_ndtr(standard)


class Laplace(LocationScale):
    """Independent Laplace distributions; the maximum-likelihood form of the mean absolute error."""

    def _log_density(self, standard: Tensor) -> Tensor:
        return -standard.abs() - math.log(2)

    def _log_cdf(self, standard: Tensor) -> Tensor:
        return laplace_log_cdf(standard)


class LogitLaplace(Likelihood):
    """DALL-E's likelihood [1]: a Laplace distribution in logit space, of pixels squeezed into [eps, 1 - eps].

    f(y | mu, b) = exp(-|logit(y) - mu| / b) / (2 b y (1 - y)) with y = (1 - 2 eps) x + eps, [1] eq. 2. The decoder
    gives mu and ln b for every value. `nll` is a density over x in [0, 1]: it holds the squeeze's factor
    1 - 2 eps. `mean` ignores b and undoes the squeeze, as [1] does for viewing.

    Args:
        channels: C.
        eps: the squeeze, 0.1 in [1].
        smallest_scale: b is kept above it; flat backgrounds would have an infinite density otherwise.

    Differs from [1]: the decoder's ln b is bounded from below.

    References:
        [1] Ramesh et al. Zero-Shot Text-to-Image Generation. 2021. arXiv:2102.12092, section 2 and appendix A.3
    """

    def __init__(self, *, channels: Size, eps: Share = 0.1, smallest_scale: Positive = 0.01):
        super().__init__()
        if not 0 < eps < 0.5:
            raise SmaltiError(f"eps must lie in (0, 0.5), not {eps}")
        self.channels, self.num_parameters = channels, 2 * channels
        self.eps, self.smallest_scale = eps, smallest_scale

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        location, raw = parameters.chunk(2, dim=1)
        floor = math.log(self.smallest_scale)
        return location, F.softplus(raw - floor) + floor  # ln b: the decoder's own value, smoothly kept above the floor

    def _squeeze(self, images: Tensor) -> Tensor:
        return (1 - 2 * self.eps) * images + self.eps

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        location, log_scale = self._split(parameters)
        squeezed = self._squeeze(images)
        distance = (squeezed.logit() - location).abs() * torch.exp(-log_scale)
        jacobian = math.log(1 - 2 * self.eps) - squeezed.log() - (1 - squeezed).log()
        return jacobian - distance - log_scale - math.log(2)

    def _log_mass(self, parameters: Tensor, images: Tensor) -> Tensor:
        location, log_scale = self._split(parameters)
        edges = (self._squeeze(edge).clamp(0, 1).logit() for edge in open_bin(images))
        lower, upper = ((edge - location) / log_scale.exp() for edge in edges)
        return log_interval(laplace_log_cdf, lower, upper)

    def _mean(self, parameters: Tensor) -> Tensor:
        return (self._split(parameters)[0].sigmoid() - self.eps) / (1 - 2 * self.eps)


class LogisticMixture(Likelihood):
    """Discretised mixture of logistics over the 256 levels, channels in sequence, as in PixelCNN++ [1].

    A pixel picks one of M components; given it, every channel is a logistic whose location is shifted linearly by the
    true values of the channels before it ([1] section 2.2). `nll` is the exact -log mass: no density, nothing to add.

    Args:
        channels: C.
        num_components: M.

    References:
        [1] Salimans, Karpathy, Chen, Kingma. PixelCNN++. 2017. arXiv:1701.05517
    """

    def __init__(self, *, channels: Size, num_components: Count = 10):
        super().__init__()
        self.channels, self.num_components = channels, num_components
        self.num_coefficients = channels * (channels - 1) // 2
        self.num_parameters = num_components * (1 + 2 * channels + self.num_coefficients)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixture logits (B, M, H, W); location, log scale (B, M, C, H, W); coefficients (B, M, C*(C-1)/2, H, W)."""
        batch, _, height, width = parameters.shape
        grouped = parameters.view(batch, self.num_components, -1, height, width)
        sizes = [1, self.channels, self.channels, self.num_coefficients]
        weight, location, log_scale, coefficients = grouped.split(sizes, dim=2)
        return weight.squeeze(2), location, log_scale.clamp(min=-7) - 2, coefficients.tanh()

    def _shifted(self, location: Tensor, coefficients: Tensor, before: Sequence[Tensor]) -> Tensor:
        """The location (B, M, H, W) of the next channel, given the values (B, H, W) in [-1, 1] of those before it."""
        first = len(before) * (len(before) - 1) // 2
        terms = (coefficients[:, :, first + index] * values[:, None] for index, values in enumerate(before))
        return sum(terms, location[:, :, len(before)])

    def _log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        weight, location, log_scale, coefficients = self._split(parameters)
        values = (images * 2 - 1).unbind(1)
        shifted = [self._shifted(location, coefficients, values[:channel]) for channel in range(self.channels)]
        location = torch.stack(shifted, dim=2)
        edges = (edge[:, None] * 2 - 1 for edge in open_bin(images))
        log_mass = log_interval(F.logsigmoid, *((edge - location) * torch.exp(-log_scale) for edge in edges))
        return torch.logsumexp(weight.log_softmax(1) + log_mass.sum(2), dim=1)

    def _log_mass(self, parameters: Tensor, images: Tensor) -> Tensor:
        return self._log_prob(parameters, images)

    def _mean(self, parameters: Tensor) -> Tensor:
        weight, location, _, coefficients = self._split(parameters)
        means: list[Tensor] = []
        for _ in range(self.channels):  # each channel's mean, given the means of the channels before it
            shifted = self._shifted(location, coefficients, means).clamp(-1, 1)
            means.append((weight.softmax(1) * shifted).sum(1))
        return (torch.stack(means, dim=1) + 1) / 2


LIKELIHOODS: Family[Likelihood] = Family(
    "likelihood",
    Likelihood,
    bernoulli=Bernoulli,
    gaussian=Gaussian,
    laplace=Laplace,
    logit_laplace=LogitLaplace,
    logistic_mixture=LogisticMixture,
)


def open_bin(images: Tensor) -> tuple[Tensor, Tensor]:
    """The edges of each 8-bit level's interval, in units of [0, 1]; the outermost reach to -inf and inf."""
    level = (images * (LEVELS - 1)).round() / (LEVELS - 1)
    lower = torch.where(level < HALF_BIN, -math.inf, level - HALF_BIN)
    return lower, torch.where(level > 1 - HALF_BIN, math.inf, level + HALF_BIN)


def log_interval(log_cdf, lower: Tensor, upper: Tensor) -> Tensor:
    """ln(F(upper) - F(lower)) for a symmetric distribution, without cancellation in either tail.

    Above the centre the interval is mirrored below it, where ln F is exact; then ln(e^a - e^b) = a + ln(1 - e^(b - a)).
    """
    mirrored = lower + upper > 0
    low, high = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    finite_low = torch.where(low.isinf(), high - 1, low)  # keeps the unused branch's gradient finite
    finite_high = torch.where(high.isinf(), torch.zeros_like(high), high)
    top = torch.where(high.isinf(), torch.zeros_like(high), log_cdf(finite_high))
    gap = (top - log_cdf(finite_low)).clamp(min=1e-12)
    return top + torch.where(low.isinf(), torch.zeros_like(gap), torch.log(-torch.expm1(-gap)))


def laplace_log_cdf(standard: Tensor) -> Tensor:
    """Log of the standard Laplace distribution function."""
    tail = -standard.abs() - math.log(2)
    return torch.where(standard < 0, tail, torch.log1p(-torch.exp(tail)))
