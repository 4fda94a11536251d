"""Lookup-free and binary spherical quantization: the code is the signs of the features."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import BottleneckOutput, DeterministicQuantizer, DiscreteBottleneck
from smalti.models.bottlenecks.estimators import straight_through
from smalti.models.bottlenecks.grids import flatten_grid
from smalti.ranges import Positive, Range

MAX_BITS = 24
EXACT_BITS = 8  # the entropy of the mean is exact within this many bits; groups of them are taken as independent


class BinaryQuantizer(DeterministicQuantizer):
    """The sign of every channel is a bit of the code: LFQ [1], or BSQ [2] with `spherical`.

    Shapes:
        features  (B, bits, h, w)  any range
        latents   (B, bits, h, w)  +-1 for LFQ, +-1 / sqrt(bits) for BSQ; straight-through, for BSQ from the unit sphere
        codes     (B, h, w)        int64 in [0, K), K = 2^bits: the sum of 2^i over the channels i that are above 0

    Loss terms, unweighted:
        commitment  mean over B, h, w, channels of |features - sg[latents]|^2; gradient reaches only the encoder
        entropy     nats per position: mean entropy of the soft assignment minus the entropy of its mean over B, h, w;
                    low when each feature is sure of its code and all codes are used. Soft means that each bit is 1 with
                    the probability that the squared distances give at temperature `softness`
        kl          (B,) nats per image, h*w*bits*ln 2: constant

    Args:
        bits: of a code, 1 to 24.
        spherical: scale the features to length 1 first (BSQ).
        softness: temperature of the soft assignment in the entropies.

    Differs from [1, 2]: the entropy of the mean is exact within groups of 8 bits, summed over groups: an upper bound.
    The first channel is the lowest bit, as in Open-MAGVIT2. It is the highest in the code of [2] and in
    vector-quantize-pytorch's LFQ, whose codes these are with the channels in reverse.

    References:
        [1] Yu et al. Language Model Beats Diffusion: Tokenizer is Key to Visual Generation. 2023. arXiv:2310.05737
        [2] Zhao et al. Image and Video Tokenization with Binary Spherical Quantization. 2024. arXiv:2406.07548

    Example:
        >>> BinaryQuantizer(bits=9)(torch.randn(2, 9, 8, 8)).codes.shape
        torch.Size([2, 8, 8])
    """

    how_gradients_pass = "the sign is piecewise constant; the gradient is copied past it"
    in_words = DiscreteBottleneck.in_words._replace(
        latents="every channel as one of two values",
        loss="distortion + commitment + an entropy term that asks for sure codes, and for all of them",
        gradient_stop="at the sign of each channel: its slope is zero",
    )
    place_values: Tensor

    def __init__(self, *, bits: Annotated[int, Range(1, MAX_BITS)], spherical: bool = False, softness: Positive = 1.0):
        super().__init__()
        if not 1 <= bits <= MAX_BITS:
            raise SmaltiError(f"bits must lie in [1, {MAX_BITS}], not {bits}")
        if softness <= 0:
            raise SmaltiError(f"softness must be positive, not {softness}")
        self.bits, self.spherical, self.softness = bits, spherical, softness
        self.codebook_size = 2**bits
        self.in_channels = self.out_channels = bits
        self.length = bits**-0.5 if spherical else 1.0
        self._register_constants()

    def _constants(self) -> dict[str, Tensor]:
        return {"place_values": torch.tensor([2**place for place in range(self.bits)]).view(1, -1, 1, 1)}

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """A channel for each bit."""
        return {"bits": bits}

    def _forward(self, features: Tensor) -> BottleneckOutput:
        codes = self._encode(features)
        features = F.normalize(features, dim=1) if self.spherical else features
        hard = self._decode(codes)
        latents = straight_through(hard, features)
        penalties = {"commitment": F.mse_loss(features, hard), "entropy": self._entropy(flatten_grid(features))}
        return BottleneckOutput(latents, codes, self.uniform_kl(features), penalties)

    def _entropy(self, features: Tensor) -> Tensor:
        """Mean entropy minus entropy of the mean, of (N, bits)."""
        logits = 4 * self.length * features / self.softness  # |f + l|^2 - |f - l|^2, the log odds of a 1
        ones, zeros = F.logsigmoid(logits), F.logsigmoid(-logits)
        sure, groups = -(ones.exp() * ones + zeros.exp() * zeros).sum(1).mean(), []
        for one, zero in zip(ones.split(EXACT_BITS, dim=1), zeros.split(EXACT_BITS, dim=1), strict=True):
            log_p = one.new_zeros(len(one), 1)
            for bit in range(one.shape[1]):
                log_p = torch.cat([log_p + zero[:, bit : bit + 1], log_p + one[:, bit : bit + 1]], dim=1)
            groups.append(log_p.exp())
        return sure - torch.special.entr(self.batch_mean(torch.cat(groups, dim=1))).sum()

    def _encode(self, features: Tensor) -> Tensor:
        return ((features > 0).long() * self.place_values).sum(1)

    def _decode(self, codes: Tensor) -> Tensor:
        ones = codes[:, None] // self.place_values % 2
        return (2.0 * ones.float() - 1) * self.length
