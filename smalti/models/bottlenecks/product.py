"""Product quantization: the channels in groups, each with its own codebook."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import BottleneckOutput
from smalti.models.bottlenecks.multi_codebook import MultiCodebookQuantizer
from smalti.ranges import CodebookSize, Count, Size


class ProductQuantizer(MultiCodebookQuantizer):
    """q vector quantizers side by side, each for D / q channels: K^q combinations from q K code vectors [1].

    Shapes:
        features  (B, D, h, w)
        latents   (B, D, h, w)
        codes     (B, q, h, w)  int64 in [0, K)

    Loss terms, unweighted: those of `VectorQuantizer`, means over the groups. kl is h*w*q*ln K.

    Args:
        num_codebooks: q.
        codebook_size: K, of each.
        code_dim: D, of all together, a multiple of q.
        quantizer: other options of every `VectorQuantizer`: learning, estimator, decay, ...

    References:
        [1] Jegou, Douze, Schmid. Product Quantization for Nearest Neighbor Search. 2011. IEEE TPAMI 33(1)

    Example:
        >>> ProductQuantizer(num_codebooks=2, codebook_size=64, code_dim=8)(torch.randn(2, 8, 4, 4)).codes.shape
        torch.Size([2, 2, 4, 4])
    """

    how_gradients_pass = "as a vector quantizer's, in each group of channels"
    in_words = MultiCodebookQuantizer.in_words._replace(
        latents="q code vectors side by side, each for a part of the channels"
    )

    def __init__(
        self,
        *,
        num_codebooks: Count,
        codebook_size: CodebookSize,
        code_dim: Size,
        quantizer: Mapping[str, Any] | None = None,
    ):
        if num_codebooks and code_dim % num_codebooks:
            raise SmaltiError(f"code_dim must be a multiple of num_codebooks, not {code_dim} and {num_codebooks}")
        super().__init__(num_codebooks, codebook_size, code_dim // max(1, num_codebooks), quantizer)
        self.in_channels = self.out_channels = code_dim

    @classmethod
    def at_rate(cls, bits: int) -> dict[str, Any]:
        """The bits shared out among the codebooks, and channels that can be too."""
        options = super().at_rate(bits)
        return {**options, "code_dim": 12 if options["num_codebooks"] == 3 else 16}

    def _forward(self, features: Tensor) -> BottleneckOutput:
        pairs = zip(self.members, features.chunk(self.num_codebooks, dim=1), strict=True)
        outputs = [quantizer(part) for quantizer, part in pairs]
        return self._output(features, torch.cat([output.latents for output in outputs], dim=1), outputs)

    def _encode(self, features: Tensor) -> Tensor:
        pairs = zip(self.members, features.chunk(self.num_codebooks, dim=1), strict=True)
        return torch.stack([quantizer.encode(part) for quantizer, part in pairs], dim=1)

    def _decode(self, codes: Tensor) -> Tensor:
        if codes.shape[1] != self.num_codebooks:
            raise SmaltiError(f"this model has {self.num_codebooks} codes at each position, not {codes.shape[1]}")
        pairs = zip(self.members, codes.unbind(1), strict=True)
        return torch.cat([quantizer._decode(part) for quantizer, part in pairs], dim=1)
