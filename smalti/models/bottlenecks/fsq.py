"""Finite scalar quantization: no codebook, nothing that could collapse."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from smalti.errors import SmaltiError, shown
from smalti.models.bottlenecks.base import BottleneckOutput, DeterministicQuantizer, DiscreteBottleneck
from smalti.models.bottlenecks.estimators import straight_through
from smalti.ranges import Range

EPS = 1e-3
Variant = Literal["paper", "listing", "symmetric"]


class Bound(NamedTuple):
    """In what the variants differ before they round."""

    stretch: float  # of tanh, in units of (L - 1) / 2
    shift: Callable[[Tensor], Tensor]  # of the features, from offset / half


BOUNDS: dict[str, Bound] = {
    "paper": Bound(1 + EPS, torch.atanh),
    "listing": Bound(1 - EPS, torch.tan),
    "symmetric": Bound(1, torch.zeros_like),
}


class FSQ(DeterministicQuantizer):
    """Every channel is squeezed by tanh and rounded to a few levels; the code is the number that they spell [1].

    A feature f of a channel with L levels becomes the whole number n = round(half tanh(f + shift) - offset), where
    offset is 1/2 for an even L and 0 for an odd one:

        variant      half                   shift                  its value in the latents
        "paper"      (L - 1) / 2 * 1.001    artanh(offset / half)  n / (L // 2): the middle level is 0
        "listing"    (L - 1) / 2 * 0.999    tan(offset / half)     n / (L // 2)
        "symmetric"  (L - 1) / 2            0                      (n + offset) / ((L - 1) / 2), from -1 to 1

    Its digit is n + L // 2, and the first channel has the lowest place: levels (8, 5) spell digit 0 + 8 * digit 1.

    Shapes:
        features  (B, D, h, w)  any range; D = number of levels given
        latents   (B, D, h, w)  in [-1, 1]; the gradient passes the rounding and is that of tanh
        codes     (B, h, w)     int64 in [0, K), K the product of the levels

    Loss terms: none but kl, (B,) nats per image, h*w*ln K: constant.

    Args:
        levels: of each channel, at least 2 each; 5 or more are advised. [8, 8, 8] is 512 codes, [8, 5, 5, 5] 1,000,
            [8, 8, 8, 6, 5] 15,360. For 2 levels take "symmetric": that of "paper" has their border at f = -3.8.
        variant: "paper", for which published weights are made; "listing", the paper's code to the letter; or
            "symmetric", where the values of an even number of levels too lie evenly around 0.

    Differs from [1]: in the listing of its appendix A.1 the shift is a tangent, which its first author calls a mistake
    for artanh (lucidrains/vector-quantize-pytorch, issue 94), and half is less than (L - 1) / 2, so that 2 levels would
    have no artanh. What is named "paper" here is what the implementations for PyTorch compute.

    References:
        [1] Mentzer et al. Finite Scalar Quantization: VQ-VAE Made Simple. 2023. arXiv:2309.15505

    Example:
        >>> FSQ(levels=(8, 5, 5, 5))(torch.randn(2, 4, 8, 8)).codes.max() < 1000
        tensor(True)
    """

    how_gradients_pass = "rounding is piecewise constant; the gradient is copied past it and goes through tanh"
    in_words = DiscreteBottleneck.in_words._replace(
        latents="every channel as one of a few evenly spaced levels",
        loss="distortion alone: there is no codebook that could fall behind",
        gradient_stop="at the rounding of each channel: its slope is zero",
    )
    levels: Tensor
    place_values: Tensor

    def __init__(self, *, levels: tuple[Annotated[int, Range(2, 1 << 20)], ...], variant: Variant = "paper"):
        super().__init__()
        if variant not in BOUNDS:
            raise SmaltiError(f"variant must be one of {', '.join(BOUNDS)}, not {shown(variant)}")
        if not levels or min(levels) < 2:
            raise SmaltiError(f"levels must be one or more numbers of at least 2, not {shown(tuple(levels))}")
        if len(levels) > 32 or math.prod(levels) > 1 << 32:
            raise SmaltiError(f"the product of the levels is K, at most 2^32; {shown(tuple(levels))} gives more")
        self.codebook_size = math.prod(levels)
        self.in_channels = self.out_channels = len(levels)
        self._levels, self.variant = tuple(levels), variant
        self._register_constants()

    def _constants(self) -> dict[str, Tensor]:
        places = [math.prod(self._levels[:index]) for index in range(len(self._levels))]
        constants = {"levels": torch.tensor(self._levels), "place_values": torch.tensor(places)}
        return {name: value.view(1, -1, 1, 1) for name, value in constants.items()}

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """Channels of 8 levels, 3 bits each, and of 4 levels, 2 bits each, for what is left."""
        fours = -bits % 3 if bits > 1 else 0
        return {"levels": (8,) * ((bits - 2 * fours) // 3) + (4,) * fours}

    @property
    def _offset(self) -> Tensor:
        return 0.5 * (self.levels % 2 == 0)

    def _rounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The whole numbers that the features become, L of them from -(L // 2) upwards, and what was rounded."""
        stretch, shift = BOUNDS[self.variant]
        half = (self.levels - 1) * stretch / 2
        bounded = (features + shift(self._offset / half)).tanh() * half - self._offset
        lowest = -(self.levels // 2)
        return bounded.round().clamp(lowest, lowest + self.levels - 1), bounded  # stretched, 1,000 go too far

    def _scaled(self, whole: Tensor) -> Tensor:
        """Whole numbers as L evenly spaced values in [-1, 1]."""
        if self.variant == "symmetric":
            return (whole + self._offset) / ((self.levels - 1) / 2)
        return (whole + 0.0) / (self.levels // 2)  # never a negative zero, as in `decode`

    def _spell(self, whole: Tensor) -> Tensor:
        digits = (whole.long() + self.levels // 2).clamp(torch.zeros_like(self.levels), self.levels - 1)  # of NaN too
        return (digits * self.place_values).sum(1)

    def _forward(self, features: Tensor) -> BottleneckOutput:
        whole, bounded = self._rounded(features)
        latents = self._scaled(straight_through(whole, bounded))
        return BottleneckOutput(latents=latents, codes=self._spell(whole), kl=self.uniform_kl(features), penalties={})

    def _encode(self, features: Tensor) -> Tensor:
        return self._spell(self._rounded(features)[0])

    def _decode(self, codes: Tensor) -> Tensor:
        digits = codes[:, None] // self.place_values % self.levels
        return self._scaled((digits - self.levels // 2).float())
