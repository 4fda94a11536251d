"""Residual vector quantization: each codebook describes what the ones before it left over."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import BottleneckOutput
from smalti.models.bottlenecks.estimators import straight_through
from smalti.models.bottlenecks.grids import Kept
from smalti.models.bottlenecks.multi_codebook import MultiCodebookQuantizer
from smalti.ops import randomness
from smalti.ranges import CodebookSize, Count, Range, Size


class ResidualQuantizer(MultiCodebookQuantizer):
    """q vector quantizers in a row; the latents are the sum of their code vectors [1].

    Shapes:
        features  (B, D, h, w)
        latents   (B, D, h, w)     straight-through, in both modes
        codes     (B, q, h, w)     int64 in [0, K); `decode` takes the first few of them too: (B, n, h, w) with n <= q

    Loss terms, unweighted: those of `VectorQuantizer`, means over the codebooks; the residual carries no gradient from
    one codebook to the next. kl is h*w*q*ln K.

    Args:
        num_codebooks: q.
        codebook_size: K, of each.
        code_dim: D.
        drop: quantizer dropout [1, section III-C]: the share of training images that get only the first n codes, n
            uniform in 1 to q - 1, so that a prefix of the codes decodes well.
        quantizer: other options of every `VectorQuantizer`: learning, estimator, decay, ...

    References:
        [1] Zeghidour et al. SoundStream: An End-to-End Neural Audio Codec. 2021. arXiv:2107.03312

    Example:
        >>> ResidualQuantizer(num_codebooks=4, codebook_size=256, code_dim=8)(torch.randn(2, 8, 4, 4)).codes.shape
        torch.Size([2, 4, 4, 4])
    """

    how_gradients_pass = "the sum of several nearest code vectors is piecewise constant; the gradient is copied past it"
    in_words = MultiCodebookQuantizer.in_words._replace(
        latents="the sum of q code vectors, each for what those before left over"
    )
    prefix_decodable = True

    def __init__(
        self,
        *,
        num_codebooks: Count,
        codebook_size: CodebookSize,
        code_dim: Size,
        drop: Annotated[float, Range(0, 1)] = 0.0,
        quantizer: Mapping[str, Any] | None = None,
    ):
        if not 0 <= drop <= 1:
            raise SmaltiError(f"drop must lie in [0, 1], not {drop}")
        super().__init__(num_codebooks, codebook_size, code_dim, quantizer)
        self.drop = drop
        self.in_channels = self.out_channels = code_dim

    def _forward(self, features: Tensor) -> BottleneckOutput:
        return self._quantized(features, self._depths(len(features), features.device))

    def _forward_kept(self, features: Tensor, kept: Kept) -> BottleneckOutput:
        """All positions of an image get the same number of codebooks."""
        return self._quantized(features, self._depths(len(kept.mask), features.device)[kept.images])

    def _quantized(self, features: Tensor, depths: Tensor) -> BottleneckOutput:
        latents, residual, outputs = torch.zeros_like(features), features, []
        for index, quantizer in enumerate(self.members):
            output = quantizer(residual)
            outputs.append(output)
            latents = latents + torch.where(depths > index, output.latents, 0.0)
            residual = residual - output.latents.detach()
        return self._output(features, straight_through(latents, features), outputs)

    def _depths(self, batch: int, device: torch.device) -> Tensor:
        """How many codebooks each image gets, (B, 1, 1, 1)."""
        count = self.num_codebooks
        if not self.training or not self.drop or count == 1:
            return torch.full((batch, 1, 1, 1), count, device=device)
        fewer = 1 + randomness.integers(count - 1, batch, 1, 1, 1, device=device)
        dropped = randomness.uniform(batch, 1, 1, 1, like=torch.empty(0, device=device)) < self.drop
        return torch.where(dropped, fewer, count)

    def _encode(self, features: Tensor) -> Tensor:
        codes = []
        for quantizer in self.members:
            codes.append(quantizer.encode(features))
            features = features - quantizer._decode(codes[-1])
        return torch.stack(codes, dim=1)

    def _decode(self, codes: Tensor) -> Tensor:
        if not 1 <= codes.shape[1] <= self.num_codebooks:
            raise SmaltiError(f"this model has {self.num_codebooks} codes at each position, not {codes.shape[1]}")
        vectors = [quantizer._decode(part) for quantizer, part in zip(self.members, codes.unbind(1), strict=False)]
        return sum(vectors[1:], vectors[0])
