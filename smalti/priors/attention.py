"""What the priors with attention share: blocks, the cache of keys and values, and how a condition enters."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.ops.linear import prepared_linear
from smalti.ops.native import kernels_for
from smalti.priors.base import ClassEmbedding, Conditions


class Cache:
    """The keys and values of one attention layer for all positions, made once and filled from the left.

    Args:
        like: gives the type and the device.
        batch: B.
        heads: attention heads.
        length: positions at most.
        key_width: of a head's keys.
        value_width: of a head's values; by default that of the keys.
    """

    def __init__(self, like: Tensor, batch: int, heads: int, length: int, key_width: int, value_width: int = 0):
        self.keys = like.new_zeros(batch, heads, length, key_width)
        self.values = like.new_zeros(batch, heads, length, value_width or key_width)
        self.length = 0

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append n positions (B, heads, n, width); returns all so far."""
        start, self.length = self.length, self.length + keys.shape[2]
        self.keys[:, :, start : self.length] = keys
        self.values[:, :, start : self.length] = values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def attend(self, qkv: Tensor) -> Tensor:
        """Append one position, and let it attend to all so far.

        Shapes:
            qkv      (B, heads * (2 * key_width + value_width))  queries, keys, values
            returns  (B, heads * value_width)
        """
        (batch, heads, length, key_width), value_width = self.keys.shape, self.values.shape[3]
        native = kernels_for(qkv, self.keys)
        if native is not None:
            out = qkv.new_empty(batch, heads * value_width)
            where = (batch, heads, self.length, length, key_width, value_width)
            native.attend(qkv.contiguous(), self.keys, self.values, out, *where)
            self.length += 1
            return out
        widths = [heads * key_width, heads * key_width, heads * value_width]
        queries, *new = (part.view(batch, heads, 1, -1) for part in qkv.split(widths, dim=1))
        keys, values = (part.flatten(0, 1) for part in self.add(*new))  # views: (B * heads, T, width)
        shares = torch.bmm(queries.flatten(0, 1) * key_width**-0.5, keys.transpose(1, 2)).softmax(-1)
        return torch.bmm(shares, values).view(batch, -1)


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm; the outputs start small (GPT-2's scaling by depth).

    Args:
        width: of the residual stream, a multiple of `heads`.
        heads: attention heads.
        dropout: of both outputs.
        layers: blocks in the whole network.
        causal: each position attends to itself and those before it; otherwise to all.
    """

    def __init__(self, width: int, heads: int, dropout: float, layers: int, *, causal: bool):
        super().__init__()
        if width % heads:
            raise SmaltiError(f"width must be a multiple of heads, not {width} and {heads}")
        self.heads, self.causal = heads, causal
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)
        for linear in (self.qkv, self.up):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (self.out, self.down):
            nn.init.normal_(linear.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, stream: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, n, width) to the same; with a cache these are its first n positions, which it keeps."""
        batch, length, width = stream.shape
        qkv = self.qkv(self.attention_norm(stream)).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, n, width / heads) each
        if cache is not None:
            cache.add(keys, values)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        stream = stream + self.drop(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return stream + self.drop(self.down(F.gelu(self.up(self.mlp_norm(stream)), approximate="tanh")))


class SteppedBlock:
    """Steps a causal `Block`: `begin` with the first positions, then `step` with one at a time.

    Args:
        block: whose weights to use.
        batch: B.
        length: positions in all.
    """

    def __init__(self, block: Block, batch: int, length: int):
        self.block = block
        self.cache = Cache(block.out.weight, batch, block.heads, length, block.out.in_features // block.heads)
        self.qkv, self.out, self.down = (prepared_linear(layer) for layer in (block.qkv, block.out, block.down))
        self.up = prepared_linear(block.up, gelu=True)

    def begin(self, stream: Tensor) -> Tensor:
        """The first positions (B, n, width)."""
        return self.block(stream, self.cache)

    def step(self, stream: Tensor) -> Tensor:
        """The next position (B, width)."""
        block = self.block
        stream = stream + self.out(self.cache.attend(self.qkv(block.attention_norm(stream))))
        return stream + self.down(self.up(block.mlp_norm(stream)))


class Prefix(nn.Module):
    """What stands before the codes: a learned start, or one vector a class, or a start and the text.

    Text that ends early is filled up with a learned vector for each position, as in DALL-E (arXiv:2102.12092, 2.2).

    Args:
        width: of the stream.
        num_conditions: classes; 0 is none.
        text_vocabulary: text tokens; 0 is none.
        text_length: positions of text.
    """

    def __init__(self, width: int, num_conditions: int, text_vocabulary: int, text_length: int):
        super().__init__()
        if num_conditions and text_length:
            raise SmaltiError("a prior takes classes or text, not both")
        self.conditions = Conditions(num_conditions)
        self.start = ClassEmbedding(num_conditions, width)
        self.tokens = self.positions = self.fillers = None
        tables: list[nn.Embedding] = [self.start]
        if text_length:
            self.conditions = Conditions(text_vocabulary, text_length)
            self.tokens = nn.Embedding(text_vocabulary, width)
            self.positions, self.fillers = nn.Embedding(text_length, width), nn.Embedding(text_length, width)
            tables += [self.tokens, self.positions, self.fillers]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, batch: int, condition: Tensor | None) -> Tensor:
        """(B, length, width)."""
        if self.tokens is None or self.positions is None or self.fillers is None or condition is None:
            classes = self.start.weight.new_full((batch,), -1, dtype=torch.int64) if condition is None else condition
            return self.start(classes)[:, None]
        start = self.start.weight.expand(batch, 1, -1)
        words = torch.where((condition < 0)[..., None], self.fillers.weight, self.tokens(condition.clamp(min=0)))
        return torch.cat([start, words + self.positions.weight], dim=1)


class GridPositions(nn.Module):
    """A learned vector for each row plus one for each column: forward() gives (h * w, width)."""

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.row, self.column = nn.Embedding(grid[0], width), nn.Embedding(grid[1], width)
        for table in (self.row, self.column):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self) -> Tensor:
        """All positions in raster order."""
        return (self.row.weight[:, None] + self.column.weight).flatten(0, 1)
