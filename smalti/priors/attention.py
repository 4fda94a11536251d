"""What the priors with attention share: blocks, positions, and how a condition enters."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.priors.base import ClassEmbedding, Conditions
from smalti.priors.layers import Features, attend


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
        self.heads, self.key_width, self.causal = heads, width // heads, causal
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)
        for linear in (self.qkv, self.up):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (self.out, self.down):
            nn.init.normal_(linear.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, stream: Features) -> Features:
        """(B, n, width) to the same."""
        mixed = attend(self.qkv(self.attention_norm(stream)), self.heads, self.key_width, causal=self.causal)
        stream = stream + self.drop(self.out(mixed))
        return stream + self.drop(self.down(F.gelu(self.up(self.mlp_norm(stream)), approximate="tanh")))


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
