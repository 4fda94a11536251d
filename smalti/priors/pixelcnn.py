"""Gated PixelCNN: a vertical and a horizontal stack, so that there is no blind spot."""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.priors.base import CausalPrior, ClassEmbedding, Conditions
from smalti.priors.layers import ChannelDropout, Features, Pointwise, StackConv2d, by_image, gate
from smalti.ranges import CodebookSize, Conditioned, Kernel, Range, Share, Size


class PixelCNN(CausalPrior):
    """Gated PixelCNN [1] over codes: a vertical and a horizontal stack, so that there is no blind spot.

    The vertical features of row r see all columns of the rows above r; the horizontal features of column c see besides
    the columns left of c in row r. Only the first layer excludes its own row (column): nothing later can bring it back.

    Shapes:
        codes   (B, h, w)     int64 in [0, K)
        logits  (B, h, w, K)  position (r, c) depends on the rows above and on the columns to the left

    Args:
        codebook_size: K.
        grid: (h, w).
        channels: of the features.
        layers: gated layers after the first.
        first_kernel: size of the first layer's window, odd.
        kernel: size of the other layers' windows, odd.
        dropout: in training, of whole channels behind the gates.
        num_conditions: classes to condition on; 0 is none.

    References:
        [1] van den Oord et al. Conditional Image Generation with PixelCNN Decoders. 2016. arXiv:1606.05328
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize,
        grid: tuple[Size, Size],
        channels: Size = 128,
        layers: Annotated[int, Range(0, 1 << 10)] = 8,
        first_kernel: Kernel = 7,
        kernel: Kernel = 3,
        dropout: Share = 0.0,
        num_conditions: Conditioned = 0,
    ):
        super().__init__(codebook_size, grid, Conditions(num_conditions))
        self.embedding = nn.Embedding(codebook_size, channels)
        options = {"dropout": dropout, "num_conditions": num_conditions}
        first = _GatedLayer(channels, first_kernel, strict=True, **options)
        rest = (_GatedLayer(channels, kernel, strict=False, **options) for _ in range(layers))
        self.layers = nn.ModuleList([first, *rest])
        self.hidden, self.head = nn.Linear(channels, channels), nn.Linear(channels, codebook_size)

    def _network(self, codes: Features, condition: Tensor | None) -> Features:
        vertical = horizontal = self.embedding(codes)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, condition)
        return self.head(F.relu(self.hidden(F.relu(horizontal))))


class _GatedLayer(nn.Module):
    """One layer of both stacks, [1] figure 2.

    `strict` (the first layer): the windows end above row r and left of column c, and there is no residual.
    """

    def __init__(self, channels: int, kernel: int, *, strict: bool, dropout: float, num_conditions: int):
        super().__init__()
        self.strict = strict
        self.vertical = StackConv2d(channels, 2 * channels, kernel, upwards=True, strict=strict)
        self.horizontal = StackConv2d(channels, 2 * channels, kernel, upwards=False, strict=strict)
        self.link, self.mix = Pointwise(2 * channels, 2 * channels), Pointwise(channels, channels)
        self.condition = ClassEmbedding(num_conditions, 2 * channels) if num_conditions else None
        self.drop = ChannelDropout(dropout)

    def forward(self, vertical: Features, horizontal: Features, condition: Tensor | None) -> tuple[Features, Features]:
        """Both stacks (B, h, w, C); the condition adds to the vertical one, and through the link to both."""
        from_above = self.vertical(vertical)
        if self.condition is not None and condition is not None:
            from_above = from_above + by_image(vertical, self.condition(condition))
        mixed = self.mix(self.drop(gate(self.horizontal(horizontal) + self.link(from_above))))
        return self.drop(gate(from_above)), mixed if self.strict else horizontal + mixed
