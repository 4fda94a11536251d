"""Finite scalar quantization: no codebook, nothing that could collapse."""

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from smalti.errors import SmaltiError, shown
from smalti.models.bottlenecks.base import BottleneckOutput, DeterministicQuantizer, DiscreteBottleneck
from smalti.models.bottlenecks.estimators import straight_through
from smalti.ranges import Range


class FSQ(DeterministicQuantizer):
    """Every channel is squeezed by tanh and rounded to a few levels; the code is the number that they spell [1].

    Shapes:
        features  (B, D, h, w)  any range; D = number of levels given
        latents   (B, D, h, w)  in [-1, 1]; the gradient passes the rounding and is that of tanh
        codes     (B, h, w)     int64 in [0, K), K the product of the levels

    Loss terms: none but kl, (B,) nats per image, h*w*ln K: constant.

    Args:
        levels: of each channel, at least 2 each; 5 or more are advised. [8, 8, 8] is 512 codes, [8, 5, 5, 5] 1,000,
            [8, 8, 8, 6, 5] 15,360.

    Differs from [1]: the values of an even number of levels are symmetric around 0 too, so that tanh needs no shift.

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

    def __init__(self, *, levels: tuple[Annotated[int, Range(2, 1 << 20)], ...]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise SmaltiError(f"levels must be one or more numbers of at least 2, not {shown(tuple(levels))}")
        if len(levels) > 32 or math.prod(levels) > 1 << 32:
            raise SmaltiError(f"the product of the levels is K, at most 2^32; {shown(tuple(levels))} gives more")
        self.codebook_size = math.prod(levels)
        self.in_channels = self.out_channels = len(levels)
        self._levels = tuple(levels)
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

    def _bounded(self, features: Tensor) -> Tensor:
        """The features where rounding gives one of L whole numbers, from -(L // 2) upwards."""
        return features.tanh() * ((self.levels - 1) / 2) - self._offset

    def _scaled(self, whole: Tensor) -> Tensor:
        """Whole numbers as L evenly spaced values in [-1, 1]."""
        return (whole + self._offset) / ((self.levels - 1) / 2)

    def _spell(self, whole: Tensor) -> Tensor:
        digits = (whole.long() + self.levels // 2).clamp(torch.zeros_like(self.levels), self.levels - 1)  # of NaN too
        return (digits * self.place_values).sum(1)

    def _forward(self, features: Tensor) -> BottleneckOutput:
        bounded = self._bounded(features)
        whole = bounded.round()
        latents = self._scaled(straight_through(whole, bounded))
        return BottleneckOutput(latents=latents, codes=self._spell(whole), kl=self.uniform_kl(features), penalties={})

    def _encode(self, features: Tensor) -> Tensor:
        return self._spell(self._bounded(features).round())

    def _decode(self, codes: Tensor) -> Tensor:
        digits = codes[:, None] // self.place_values % self.levels
        return self._scaled((digits - self.levels // 2).float())
