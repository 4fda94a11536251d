"""Gated PixelCNN with an exact incremental stepper."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.priors.base import Prior, Stepper


class PixelCNN(Prior):
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
        num_conditions: int = 0,
    ):
        super().__init__()
        if first_kernel % 2 == 0 or kernel % 2 == 0 or kernel < 3 or first_kernel < 3:
            raise SmaltiError(f"kernels must be odd and at least 3, not {first_kernel} and {kernel}")
        self.codebook_size, self.grid, self.num_conditions = codebook_size, (grid[0], grid[1]), num_conditions
        self.embedding = nn.Embedding(codebook_size, channels)
        first = _GatedLayer(channels, first_kernel, strict=True, num_conditions=num_conditions)
        rest = (_GatedLayer(channels, kernel, strict=False, num_conditions=num_conditions) for _ in range(layers))
        self.layers = nn.ModuleList([first, *rest])
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, codebook_size)
        )

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        vertical = horizontal = self.embedding(codes).permute(0, 3, 1, 2)  # (B, C, h, w)
        for layer in self.layers:
            assert isinstance(layer, _GatedLayer)
            vertical, horizontal = layer(vertical, horizontal, condition)
        return self.head(horizontal.permute(0, 2, 3, 1))

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _PixelCNNStepper(self, batch, condition)


class _GatedLayer(nn.Module):
    """One layer of both stacks, [1] figure 2.

    `strict` (the first layer): the windows end above row r and left of column c, and there is no residual.
    """

    def __init__(self, channels: int, kernel: int, *, strict: bool, num_conditions: int):
        super().__init__()
        self.strict, self.reach = strict, kernel // 2
        rows = self.reach + (0 if strict else 1)  # the vertical window: rows r - reach to r (or r - 1)
        self.rows = self.columns = rows
        self.vertical = nn.Conv2d(channels, 2 * channels, (rows, kernel))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, rows))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.condition = nn.Embedding(num_conditions, 2 * channels) if num_conditions else None

    def forward(self, vertical: Tensor, horizontal: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        height, width = vertical.shape[-2:]
        above = F.pad(vertical, (self.reach, self.reach, self.reach, 0))[..., : height + self.rows - 1, :]
        left = F.pad(horizontal, (self.reach, 0))[..., : width + self.columns - 1]
        return self.combine(self.vertical(above), self.horizontal(left), horizontal, condition)

    def combine(
        self, vertical: Tensor, horizontal: Tensor, residual: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """From the two convolutions' results to the two stacks' outputs."""
        bias = 0.0 if self.condition is None or condition is None else self.condition(condition)[:, :, None, None]
        mixed = self.mix(_gate(horizontal + self.link(vertical) + bias))
        return _gate(vertical + bias), mixed if self.strict else residual + mixed


def _gate(features: Tensor) -> Tensor:
    signal, gate = features.chunk(2, dim=1)
    return signal.tanh() * gate.sigmoid()


class _PixelCNNStepper:
    """Position after position with the layers' inputs kept.

    A new row costs one pass of the vertical stack over that row (its inputs are the rows above); a position costs one
    pass of the horizontal stack over its own column.
    """

    def __init__(self, prior: PixelCNN, batch: int, condition: Tensor | None):
        self.prior, self.condition = prior, condition
        self.height, self.width = prior.grid
        weight = prior.embedding.weight
        self.layers = [layer for layer in prior.layers if isinstance(layer, _GatedLayer)]

        def zeros(rows: int, columns: int) -> Tensor:
            return weight.new_zeros(batch, weight.shape[1], rows, columns)

        # inputs of each layer: the rows that its vertical window sees (padded left and right), the columns of this row
        self.rows = [zeros(layer.rows, self.width + 2 * layer.reach) for layer in self.layers]
        self.columns = [zeros(1, layer.columns) for layer in self.layers]
        self.embedded = zeros(1, self.width)  # codes of the row that is being drawn
        self.vertical: list[Tensor] = []  # of each layer, the convolution's result for this row
        self.place = 0

    def step(self, previous: Tensor | None) -> Tensor:
        row, column = divmod(self.place, self.width)
        if previous is not None:
            embedded = self.prior.embedding(previous)
            self.embedded[:, :, 0, (self.place - 1) % self.width] = embedded
            self.columns[0] = _push(self.columns[0], embedded[:, :, None, None], dim=3)
        if column == 0:
            self._new_row(first=row == 0)
        horizontal = self.embedded[:, :, :, :1]  # only its shape counts: the first layer has no residual
        for index, layer in enumerate(self.layers):
            if index:
                self.columns[index] = _push(self.columns[index], horizontal, dim=3)
            here = self.vertical[index][..., column : column + 1]
            _, horizontal = layer.combine(here, layer.horizontal(self.columns[index]), horizontal, self.condition)
        self.place += 1
        return self.prior.head(horizontal[:, :, 0, 0])

    def _new_row(self, first: bool) -> None:
        """Take the finished row into the vertical stack and begin the next one."""
        self.columns = [torch.zeros_like(columns) for columns in self.columns]
        self.vertical = []
        features = self.embedded
        for index, layer in enumerate(self.layers):
            if not (first and index == 0):  # above the first row there is nothing but padding
                padded = F.pad(features, (layer.reach, layer.reach))
                self.rows[index] = _push(self.rows[index], padded, dim=2)
            result = layer.vertical(self.rows[index])
            self.vertical.append(result)
            features, _ = layer.combine(result, torch.zeros_like(result), torch.zeros_like(features), self.condition)


def _push(window: Tensor, new: Tensor, dim: int) -> Tensor:
    """Shift a window by one along `dim` and put `new` at its end."""
    return torch.cat([window.narrow(dim, 1, window.shape[dim] - 1), new], dim=dim)
