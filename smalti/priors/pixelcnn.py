"""Gated PixelCNN with an exact incremental stepper."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.ops.linear import prepared_linear
from smalti.priors.base import ClassEmbedding, Conditions, Stepper
from smalti.priors.causal import LeftTaps, RasterStepper, as_columns, as_rows, check_kernel
from smalti.priors.raster import GATED, RELU, Raster, RasterPrior


class PixelCNN(RasterPrior):
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
        codebook_size: int,
        grid: tuple[int, int],
        channels: int = 128,
        layers: int = 8,
        first_kernel: int = 7,
        kernel: int = 3,
        dropout: float = 0.0,
        num_conditions: int = 0,
    ):
        super().__init__(codebook_size, grid, Conditions(num_conditions))
        self.embedding = nn.Embedding(codebook_size, channels)
        options = {"dropout": dropout, "num_conditions": num_conditions}
        first = _GatedLayer(channels, first_kernel, strict=True, **options)
        rest = (_GatedLayer(channels, kernel, strict=False, **options) for _ in range(layers))
        self.layers = nn.ModuleList([first, *rest])
        self.hidden, self.head = nn.Linear(channels, channels), nn.Linear(channels, codebook_size)

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        embedded = self.embedding(codes).permute(0, 3, 1, 2)
        vertical = horizontal = embedded.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            assert isinstance(layer, _GatedLayer)
            vertical, horizontal = layer(vertical, horizontal, condition)
        return self.head(F.relu(self.hidden(F.relu(horizontal.permute(0, 2, 3, 1)))))

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _GatedStepper(self, batch, condition)

    def _describe(self, raster: Raster, condition: Tensor | None) -> None:
        channels = self.embedding.embedding_dim
        first, *rest = [layer for layer in self.layers if isinstance(layer, _GatedLayer)]
        codes = raster.window(channels, first.reach + 1, first.reach)
        inputs = [raster.window(channels, 1, layer.reach) for layer in rest]  # of the horizontal stack
        outs = [*(window.current for window in inputs), raster.point(channels)]
        above, vertical, stream = codes, None, None
        for layer, left, out in zip([first, *rest], [codes, *inputs], outs, strict=True):
            if vertical is not None:
                above = raster.window(channels, layer.taps, layer.reach)
                raster.activation(GATED, vertical, above.current, rows=True)
            shift = layer.bias(condition)
            bias = raster.bias(layer.vertical, shift.flatten(1) if isinstance(shift, Tensor) else None)
            vertical = raster.above(above, layer.vertical.weight, bias)
            start = raster.linear(vertical, layer.link, layer.horizontal.bias, rows=True)
            gated = raster.activation(GATED, raster.left(left, layer.horizontal.weight[:, :, 0], start))
            mixed = raster.linear(gated, layer.mix, out=out if stream is None else None)
            stream = mixed if stream is None else raster.add(stream, mixed, out)
        assert stream is not None
        hidden = raster.linear(raster.activation(RELU, stream), self.hidden)
        raster.draw(raster.linear(raster.activation(RELU, hidden), self.head), self.embedding.weight, codes)


class _GatedLayer(nn.Module):
    """One layer of both stacks, [1] figure 2.

    `strict` (the first layer): the windows end above row r and left of column c, and there is no residual.
    """

    def __init__(self, channels: int, kernel: int, *, strict: bool, dropout: float, num_conditions: int):
        super().__init__()
        check_kernel(kernel)
        self.strict, self.reach = strict, kernel // 2
        self.taps = self.reach + (0 if strict else 1)  # rows of the vertical window, columns of the horizontal one
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.taps, kernel))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.taps))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.condition = ClassEmbedding(num_conditions, 2 * channels) if num_conditions else None
        self.drop = nn.Dropout2d(dropout)

    def forward(self, vertical: Tensor, horizontal: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        height, width = vertical.shape[-2:]
        above = F.pad(vertical, (self.reach, self.reach, self.reach, 0))[..., : height + self.taps - 1, :]
        left = F.pad(horizontal, (self.reach, 0))[..., : width + self.taps - 1]
        from_above = self.vertical(above) + self.bias(condition)
        mixed = self.mix(self.drop(gate(self.horizontal(left) + self.link(from_above))))
        return self.drop(gate(from_above)), mixed if self.strict else horizontal + mixed

    def bias(self, condition: Tensor | None) -> Tensor | float:
        """What the condition adds to the vertical stack, and through the link to the horizontal one."""
        return 0.0 if self.condition is None or condition is None else self.condition(condition)[:, :, None, None]


def gate(features: Tensor) -> Tensor:
    """Half of the channels through tanh, times the other half through a sigmoid."""
    signal, gates = features.chunk(2, dim=1)
    return signal.tanh() * gates.sigmoid()


class _SteppedLayer:
    """One layer: the vertical stack a row at a time, the horizontal stack a position at a time."""

    def __init__(self, layer: _GatedLayer, batch: int, width: int, condition: Tensor | None):
        self.layer, self.bias = layer, layer.bias(condition)
        channels = layer.mix.in_channels
        self.rows = layer.mix.weight.new_zeros(batch, channels, layer.taps, width + 2 * layer.reach)
        self.left = LeftTaps(layer.horizontal.weight[:, :, 0], batch, width, layer.reach)
        self.mix = prepared_linear(layer.mix)
        self.from_above = self.rows

    def begin_row(self, above: Tensor | None) -> Tensor:
        """Push a row (B, C, 1, w) into the vertical window; returns the vertical stack's output for the row below."""
        if above is not None:
            padded = F.pad(above, (self.layer.reach, self.layer.reach))
            self.rows = torch.cat([self.rows[:, :, 1:], padded], dim=2)
        vertical = self.layer.vertical(self.rows) + self.bias
        bias = self.layer.horizontal.bias
        assert bias is not None
        self.from_above = as_rows(self.layer.link(vertical)) + bias
        self.left.clear()
        return gate(vertical)

    def at(self, column: int) -> Tensor:
        """The horizontal stack's output (B, C) at a column, without the residual."""
        return self.mix(gate(self.left.at(column, self.from_above[column])))


class _GatedStepper(RasterStepper):
    def __init__(self, prior: PixelCNN, batch: int, condition: Tensor | None):
        super().__init__(prior.embedding, prior.grid)
        layers = [layer for layer in prior.layers if isinstance(layer, _GatedLayer)]
        self.first, *self.rest = (_SteppedLayer(layer, batch, self.width, condition) for layer in layers)
        self.hidden, self.head = prepared_linear(prior.hidden), prepared_linear(prior.head)

    def know(self, column: int, embedded: Tensor) -> None:
        self.first.left.put(column, embedded)

    def begin_row(self) -> None:
        finished = as_columns(self.first.left.row[self.first.left.reach :]) if self.place else None
        vertical = self.first.begin_row(finished)
        for layer in self.rest:
            vertical = layer.begin_row(vertical)

    def at(self, column: int) -> Tensor:
        stream = self.first.at(column)
        for layer in self.rest:
            layer.left.put(column, stream)
            stream = stream + layer.at(column)
        return self.head(self.hidden(stream.relu()).relu_())
