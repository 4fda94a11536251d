"""The first PixelCNN: masked convolutions in residual blocks, with a blind spot; for published numbers."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.priors.base import CausalPrior, ClassEmbedding, Conditions
from smalti.priors.layers import CausalConv2d, Features, Pointwise, by_image
from smalti.ranges import CodebookSize, Conditioned, Count, Kernel, Range, Size


class MaskedPixelCNN(CausalPrior):
    """PixelCNN [1]: one stack of masked convolutions, blind to part of what lies above to the right.

    `PixelCNN` (gated, two stacks) has no blind spot and models codes better; this one is smaller and quicker.

    Shapes:
        codes   (B, h, w)     int64 in [0, K)
        logits  (B, h, w, K)

    Args:
        codebook_size: K.
        grid: (h, w).
        code_dim: of the embedding of the codes; 1 for binary pixels is one number a pixel, as in [1].
        channels: of the residual stream; the blocks work on half of them.
        layers: residual blocks (1x1, masked 3x3, 1x1).
        first_kernel: size of the first layer's window, odd.
        num_conditions: classes to condition on; 0 is none.

    References:
        [1] van den Oord et al. Pixel Recurrent Neural Networks. 2016. arXiv:1601.06759
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize,
        grid: tuple[Size, Size],
        code_dim: Size = 16,
        channels: Annotated[int, Range(2, 1 << 20)] = 32,
        layers: Count = 15,
        first_kernel: Kernel = 7,
        num_conditions: Conditioned = 0,
    ):
        super().__init__(codebook_size, grid, Conditions(num_conditions))
        self.embedding = nn.Embedding(codebook_size, code_dim)
        if code_dim == 1:  # the codes are levels
            self.embedding.weight.data.copy_(torch.linspace(-1, 1, codebook_size)[:, None])
        self.first = CausalConv2d(code_dim, channels, first_kernel, strict=True)
        self.blocks = nn.ModuleList(_Block(channels) for _ in range(layers))
        self.classes = ClassEmbedding(num_conditions, channels) if num_conditions else None
        self.hidden, self.head = Pointwise(channels, channels), Pointwise(channels, codebook_size)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """He's weights; at first every block is the identity and every code is as likely as the others."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for last in (self.head, *(block.up for block in self.blocks if isinstance(block, _Block))):
            nn.init.zeros_(last.weight)

    def _network(self, codes: Features, condition: Tensor | None) -> Features:
        stream = self.first(self.embedding(codes))
        if self.classes is not None and condition is not None:
            stream = stream + by_image(stream, self.classes(condition))
        for block in self.blocks:
            stream = block(stream)
        return self.head(F.relu(self.hidden(F.relu(stream))))


class _Block(nn.Module):
    """ReLU, 1x1 to half the channels, ReLU, masked 3x3, ReLU, 1x1 back; added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.down, self.middle = Pointwise(channels, half), CausalConv2d(half, half, 3)
        self.up = Pointwise(half, channels)

    def forward(self, stream: Features) -> Features:
        return stream + self.up(F.relu(self.middle(F.relu(self.down(F.relu(stream))))))
