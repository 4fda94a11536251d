"""PixelSNAIL: causal convolutions for what is near, causal attention for what is far."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.ops.linear import prepared_linear
from smalti.priors.attention import Cache
from smalti.priors.base import ClassEmbedding, Conditions, Stepper
from smalti.priors.causal import CausalConv2d, RasterStepper, SteppedConv
from smalti.priors.raster import ELU, GLU, Place, Raster, RasterPrior


class PixelSNAIL(RasterPrior):
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
        codebook_size: int,
        grid: tuple[int, int],
        channels: int = 64,
        blocks: int = 4,
        residuals: int = 2,
        heads: int = 4,
        key_width: int = 16,
        first_kernel: int = 5,
        dropout: float = 0.0,
        num_conditions: int = 0,
    ):
        super().__init__(codebook_size, grid, Conditions(num_conditions))
        self.embedding = nn.Embedding(codebook_size, channels)
        self.first = CausalConv2d(channels, channels, first_kernel, strict=True)
        self.place = nn.Parameter(0.02 * torch.randn(channels, grid[0], 1) + 0.02 * torch.randn(channels, 1, grid[1]))
        self.classes = ClassEmbedding(num_conditions, channels) if num_conditions else None
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [*(_Residual(channels, dropout) for _ in range(residuals)), _Attend(channels, heads, key_width)]
            )
            for _ in range(blocks)
        )
        self.hidden, self.head = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, codebook_size, 1)

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        embedded = self.embedding(codes).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        stream = self.first(embedded) + self.place
        if self.classes is not None and condition is not None:
            stream = stream + self.classes(condition)[:, :, None, None]
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            for layer in block:
                stream = layer(stream)
        return self.head(F.elu(self.hidden(F.elu(stream)))).permute(0, 2, 3, 1)

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _SnailStepper(self, batch, condition)

    def _describe(self, raster: Raster, condition: Tensor | None) -> None:
        channels, bias = self.embedding.embedding_dim, raster.bias(self.first).memory
        places = (self.place.detach().flatten(1).T + bias).contiguous()  # (T, C)
        codes = raster.window(channels, self.first.reach + 1, self.first.reach)
        start = Place(places, channels, row=raster.width * channels, column=channels)
        stream = raster.causal(self.first, codes, ELU, start)
        if self.classes is not None and condition is not None:
            stream = raster.add(stream, Place(self.classes(condition), channels, image=channels))
        for layer in (layer for block in self.blocks if isinstance(block, nn.ModuleList) for layer in block):
            if isinstance(layer, _Residual):
                inner = raster.causal(layer.inner, stream, ELU)
                change = raster.causal(layer.outer, inner, ELU)
            else:
                assert isinstance(layer, _Attend)
                qkv = raster.linear(stream, layer.qkv)
                mixed = raster.attend(qkv, layer.heads, layer.key_width, layer.value_width, self.num_codes)
                own, others = layer.merge.weight.flatten(1).split([channels, mixed.channels], dim=1)
                change = raster.product(raster.activation(ELU, stream), own, raster.bias(layer.merge))
                change = raster.product(raster.activation(ELU, mixed), others, change, change)
            stream = raster.add(stream, raster.activation(GLU, change))
        hidden = raster.linear(raster.activation(ELU, stream), self.hidden)
        raster.draw(raster.linear(raster.activation(ELU, hidden), self.head), self.embedding.weight, codes)


class _Residual(nn.Module):
    """stream + a * sigmoid(b), with (a, b) from two causal convolutions behind ELUs."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.inner, self.outer = CausalConv2d(channels, channels, 3), CausalConv2d(channels, 2 * channels, 3)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, stream: Tensor) -> Tensor:
        return stream + F.glu(self.outer(self.drop(F.elu(self.inner(F.elu(stream))))), dim=1)


class _Attend(nn.Module):
    """Causal attention over the features of this and all earlier positions, merged into the stream through a gate."""

    def __init__(self, channels: int, heads: int, key_width: int):
        super().__init__()
        self.heads, self.key_width, self.value_width = heads, key_width, channels // heads
        self.widths = [heads * key_width, heads * key_width, heads * self.value_width]
        self.qkv = nn.Conv2d(channels, sum(self.widths), 1)
        self.merge = nn.Conv2d(channels + self.widths[2], 2 * channels, 1)

    def forward(self, stream: Tensor) -> Tensor:
        height, width = stream.shape[-2:]
        queries, keys, values = self.split(self.qkv(stream).flatten(2).transpose(1, 2))
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        mixed = mixed.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))
        return stream + F.glu(self.merge(F.elu(torch.cat([stream, mixed], dim=1))), dim=1)

    def split(self, qkv: Tensor) -> list[Tensor]:
        """(B, n, widths) to queries, keys and values (B, heads, n, width)."""
        return [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in qkv.split(self.widths, dim=2)]


class _SteppedResidual:
    def __init__(self, layer: _Residual, batch: int, width: int):
        self.inner, self.outer = SteppedConv(layer.inner, batch, width), SteppedConv(layer.outer, batch, width)

    def begin_row(self) -> None:
        self.inner.begin_row()
        self.outer.begin_row()

    def at(self, column: int, stream: Tensor) -> Tensor:
        self.inner.put(column, F.elu(stream))
        self.outer.put(column, F.elu(self.inner.at(column)))
        return stream + F.glu(self.outer.at(column), dim=1)


class _SteppedAttend:
    def __init__(self, layer: _Attend, batch: int, length: int):
        self.layer, self.qkv, self.merge = layer, prepared_linear(layer.qkv), prepared_linear(layer.merge)
        weight = layer.qkv.weight
        self.cache = Cache(weight, batch, layer.heads, length, layer.key_width, layer.value_width)

    def begin_row(self) -> None:
        """Nothing: attention knows no rows."""

    def at(self, column: int, stream: Tensor) -> Tensor:
        mixed = self.cache.attend(self.qkv(stream))
        return stream + F.glu(self.merge(F.elu(torch.cat([stream, mixed], dim=1))), dim=1)


class _SnailStepper(RasterStepper):
    def __init__(self, prior: PixelSNAIL, batch: int, condition: Tensor | None):
        super().__init__(prior.embedding, prior.grid)
        self.first = SteppedConv(prior.first, batch, self.width)
        self.places = prior.place.detach().flatten(1).T.contiguous()  # (T, C)
        self.condition = prior.classes(condition) if prior.classes is not None and condition is not None else 0.0
        self.layers: list[_SteppedResidual | _SteppedAttend] = []
        for layer in (layer for block in prior.blocks if isinstance(block, nn.ModuleList) for layer in block):
            if isinstance(layer, _Residual):
                self.layers.append(_SteppedResidual(layer, batch, self.width))
            elif isinstance(layer, _Attend):
                self.layers.append(_SteppedAttend(layer, batch, prior.num_codes))
        self.hidden, self.head = prepared_linear(prior.hidden), prepared_linear(prior.head)

    def know(self, column: int, embedded: Tensor) -> None:
        self.first.put(column, embedded)

    def begin_row(self) -> None:
        self.first.begin_row()
        for layer in self.layers:
            layer.begin_row()

    def at(self, column: int) -> Tensor:
        stream = self.first.at(column) + self.places[self.place - 1] + self.condition
        for layer in self.layers:
            stream = layer.at(column, stream)
        return self.head(F.elu(self.hidden(F.elu(stream))))
