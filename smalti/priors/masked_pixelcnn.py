"""The first PixelCNN: masked convolutions in residual blocks, with a blind spot; for published numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.ops.linear import prepared_linear
from smalti.priors.base import ClassEmbedding, Conditions, Stepper
from smalti.priors.causal import CausalConv2d, RasterStepper, SteppedConv
from smalti.priors.raster import RELU, Raster, RasterPrior


class MaskedPixelCNN(RasterPrior):
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
        codebook_size: int,
        grid: tuple[int, int],
        code_dim: int = 16,
        channels: int = 32,
        layers: int = 15,
        first_kernel: int = 7,
        num_conditions: int = 0,
    ):
        super().__init__(codebook_size, grid, Conditions(num_conditions))
        self.embedding = nn.Embedding(codebook_size, code_dim)
        if code_dim == 1:  # the codes are levels
            self.embedding.weight.data.copy_(torch.linspace(-1, 1, codebook_size)[:, None])
        self.first = CausalConv2d(code_dim, channels, first_kernel, strict=True)
        self.blocks = nn.ModuleList(_Block(channels) for _ in range(layers))
        self.classes = ClassEmbedding(num_conditions, channels) if num_conditions else None
        self.hidden, self.head = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, codebook_size, 1)
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

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        stream = self.first(self.embedding(codes).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
        if self.classes is not None and condition is not None:
            stream = stream + self.classes(condition)[:, :, None, None]
        for block in self.blocks:
            stream = block(stream)
        return self.head(F.relu(self.hidden(F.relu(stream)))).permute(0, 2, 3, 1)

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _MaskedStepper(self, batch, condition)

    def _describe(self, raster: Raster, condition: Tensor | None) -> None:
        shift = self.classes(condition) if self.classes is not None and condition is not None else None
        codes = raster.window(self.embedding.embedding_dim, self.first.reach + 1, self.first.reach)
        stream = raster.causal(self.first, codes, RELU, raster.bias(self.first, shift))
        for block in self.blocks:
            assert isinstance(block, _Block)
            down = raster.linear(raster.activation(RELU, stream), block.down)
            middle = raster.causal(block.middle, down, RELU)
            stream = raster.add(stream, raster.linear(raster.activation(RELU, middle), block.up))
        hidden = raster.linear(raster.activation(RELU, stream), self.hidden)
        raster.draw(raster.linear(raster.activation(RELU, hidden), self.head), self.embedding.weight, codes)


class _Block(nn.Module):
    """ReLU, 1x1 to half the channels, ReLU, masked 3x3, ReLU, 1x1 back; added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.down, self.middle = nn.Conv2d(channels, half, 1), CausalConv2d(half, half, 3)
        self.up = nn.Conv2d(half, channels, 1)

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.up(F.relu(self.middle(F.relu(self.down(F.relu(stream))))))


class _MaskedStepper(RasterStepper):
    def __init__(self, prior: MaskedPixelCNN, batch: int, condition: Tensor | None):
        super().__init__(prior.embedding, prior.grid)
        self.first = SteppedConv(prior.first, batch, self.width)
        blocks = [block for block in prior.blocks if isinstance(block, _Block)]
        self.blocks = [
            (prepared_linear(block.down), SteppedConv(block.middle, batch, self.width), prepared_linear(block.up))
            for block in blocks
        ]
        self.hidden, self.head = prepared_linear(prior.hidden), prepared_linear(prior.head)
        self.condition = prior.classes(condition) if prior.classes is not None and condition is not None else 0.0

    def know(self, column: int, embedded: Tensor) -> None:
        self.first.put(column, embedded)

    def begin_row(self) -> None:
        self.first.begin_row()
        for _, middle, _ in self.blocks:
            middle.begin_row()

    def at(self, column: int) -> Tensor:
        stream = self.first.at(column) + self.condition
        for down, middle, up in self.blocks:
            middle.put(column, down(stream.relu()).relu_())
            stream = stream + up(middle.at(column).relu_())
        return self.head(self.hidden(stream.relu()).relu_())
