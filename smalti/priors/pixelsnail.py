"""PixelSNAIL: causal convolutions for what is near, causal attention for what is far."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.priors.base import CausalPrior, ClassEmbedding, Conditions
from smalti.priors.layers import CausalConv2d, ChannelDropout, Features, Pointwise, attend, by_image, by_position
from smalti.ranges import CodebookSize, Conditioned, Count, Kernel, Range, Share, Size


class PixelSNAIL(CausalPrior):
    """PixelSNAIL [1]: blocks of gated residual convolutions followed by causal attention over all earlier positions.

    Differs from [1]: one masked convolution where [1] shifts two; learned row and column positions instead of
    coordinates; attention reads the features, which know all codes before their position, and not the codes again.

    Shapes:
        codes   (B, h, w)     int64 in [0, K)
        logits  (B, h, w, K)

    Args:
        codebook_size: K.
        grid: (h, w).
        channels: of the residual stream.
        blocks: each is `residuals` gated residual layers and one attention.
        residuals: gated residual layers of a block.
        heads: attention heads.
        key_width: of a head's queries and keys; its values have channels / heads.
        first_kernel: size of the first layer's window, odd.
        dropout: in training, inside the gated residual layers.
        num_conditions: classes to condition on; 0 is none.

    References:
        [1] Chen et al. PixelSNAIL: An Improved Autoregressive Generative Model. 2017. arXiv:1712.09763
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize,
        grid: tuple[Size, Size],
        channels: Size = 64,
        blocks: Count = 4,
        residuals: Annotated[int, Range(0, 1 << 10)] = 2,
        heads: Count = 4,
        key_width: Size = 16,
        first_kernel: Kernel = 5,
        dropout: Share = 0.0,
        num_conditions: Conditioned = 0,
    ):
        super().__init__(codebook_size, grid, Conditions(num_conditions))
        self.embedding = nn.Embedding(codebook_size, channels)
        self.first = CausalConv2d(channels, channels, first_kernel, strict=True)
        self.place = nn.Parameter(0.02 * torch.randn(channels, grid[0], 1) + 0.02 * torch.randn(channels, 1, grid[1]))
        self.classes = ClassEmbedding(num_conditions, channels) if num_conditions else None
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(_Residual(channels, dropout) for _ in range(residuals)), _Attend(channels, heads, key_width)
            )
            for _ in range(blocks)
        )
        self.hidden, self.head = Pointwise(channels, channels), Pointwise(channels, codebook_size)

    def _network(self, codes: Features, condition: Tensor | None) -> Features:
        stream = self.first(self.embedding(codes))
        stream = stream + by_position(codes, self.place.flatten(1).T)
        if self.classes is not None and condition is not None:
            stream = stream + by_image(stream, self.classes(condition))
        for block in self.blocks:
            stream = block(stream)
        return self.head(F.elu(self.hidden(F.elu(stream))))


class _Residual(nn.Module):
    """stream + a * sigmoid(b), with (a, b) from two causal convolutions behind ELUs."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.inner, self.outer = CausalConv2d(channels, channels, 3), CausalConv2d(channels, 2 * channels, 3)
        self.drop = ChannelDropout(dropout)

    def forward(self, stream: Features) -> Features:
        return stream + F.glu(self.outer(self.drop(F.elu(self.inner(F.elu(stream))))))


class _Attend(nn.Module):
    """Causal attention over the features of this and all earlier positions, merged into the stream through a gate."""

    def __init__(self, channels: int, heads: int, key_width: int):
        super().__init__()
        self.heads, self.key_width = heads, key_width
        self.qkv = Pointwise(channels, heads * (2 * key_width + channels // heads))
        self.merge = Pointwise(channels + heads * (channels // heads), 2 * channels)

    def forward(self, stream: Features) -> Features:
        mixed = attend(self.qkv(stream), self.heads, self.key_width)
        return stream + F.glu(self.merge(torch.cat([F.elu(stream), F.elu(mixed)], dim=-1)))
