"""Decoder-only transformer over codes, with a static key-value cache."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.priors.base import Prior, Stepper


class Transformer(Prior):
    """Causal transformer over the codes in raster order [1], pre-norm, with learned row and column positions.

    The input at position t is the code at t - 1; at position 0 it is the condition's class, or a learned start.

    Shapes:
        codes   (B, h, w)     int64 in [0, K)
        logits  (B, h, w, K)

    Args:
        codebook_size: K.
        grid: (h, w).
        width: of the residual stream, a multiple of `heads`.
        layers: blocks.
        heads: attention heads.
        dropout: in training, of the embeddings and of each block's output.
        num_conditions: classes to condition on; 0 is none.

    References:
        [1] Ramesh et al. Zero-Shot Text-to-Image Generation. 2021. arXiv:2102.12092, section 2.2 (the image part)
    """

    def __init__(
        self,
        *,
        codebook_size: int,
        grid: tuple[int, int],
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        num_conditions: int = 0,
    ):
        super().__init__()
        if width % heads:
            raise SmaltiError(f"width must be a multiple of heads, not {width} and {heads}")
        self.codebook_size, self.grid, self.num_conditions = codebook_size, (grid[0], grid[1]), num_conditions
        self.codes = nn.Embedding(codebook_size, width)
        self.starts = nn.Embedding(max(1, num_conditions), width)
        self.row, self.column = nn.Embedding(grid[0], width), nn.Embedding(grid[1], width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout, layers) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codebook_size)
        for table in (self.codes, self.starts, self.row, self.column):
            nn.init.normal_(table.weight, std=0.02)

    def positions(self) -> Tensor:
        """Row plus column embedding of every position, (h*w, width)."""
        return (self.row.weight[:, None] + self.column.weight).flatten(0, 1)

    def start(self, batch: int, condition: Tensor | None) -> Tensor:
        """The input at position 0, (B, width)."""
        return self.starts.weight[:1].expand(batch, -1) if condition is None else self.starts(condition)

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        before = self.codes(codes.flatten(1)[:, :-1])
        stream = torch.cat([self.start(len(codes), condition)[:, None], before], dim=1)  # (B, T, width)
        stream = self.drop(stream + self.positions())
        for block in self.blocks:
            stream = block(stream, None)
        return self.head(self.norm(stream)).view(*codes.shape, -1)

    def _stepper(self, batch: int, condition: Tensor | None) -> Stepper:
        return _TransformerStepper(self, batch, condition)


class Cache:
    """The keys and values of one block for all positions, made once: (B, heads, T, width/heads) each."""

    def __init__(self, like: Tensor, batch: int, heads: int, length: int):
        width = like.shape[-1]
        self.keys = like.new_zeros(batch, heads, length, width // heads)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append one position (B, heads, 1, width/heads); returns all so far."""
        self.keys[:, :, self.length] = keys[:, :, 0]
        self.values[:, :, self.length] = values[:, :, 0]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class _Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm; the outputs start small (GPT-2's scaling by depth)."""

    def __init__(self, width: int, heads: int, dropout: float, layers: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)
        for linear in (self.qkv, self.up):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (self.out, self.down):
            nn.init.normal_(linear.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, stream: Tensor, cache: Cache | None) -> Tensor:
        """(B, T, width) to the same; with a cache T is 1, the next position."""
        batch, length, width = stream.shape
        qkv = self.qkv(self.attention_norm(stream)).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T, width/heads) each
        if cache is not None:
            keys, values = cache.add(keys, values)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=cache is None)
        stream = stream + self.drop(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return stream + self.drop(self.down(F.gelu(self.up(self.mlp_norm(stream)))))


class _TransformerStepper:
    """One position at a time, attending to cached keys and values."""

    def __init__(self, prior: Transformer, batch: int, condition: Tensor | None):
        self.prior, self.places = prior, iter(prior.positions())
        self.first = prior.start(batch, condition)
        length = prior.grid[0] * prior.grid[1]
        blocks = [block for block in prior.blocks if isinstance(block, _Block)]
        self.caches = [Cache(prior.codes.weight, batch, block.heads, length) for block in blocks]

    def step(self, previous: Tensor | None) -> Tensor:
        stream = self.first if previous is None else self.prior.codes(previous)
        stream = (stream + next(self.places))[:, None]
        for block, cache in zip(self.prior.blocks, self.caches, strict=True):
            stream = block(stream, cache)
        return self.prior.head(self.prior.norm(stream))[:, 0]
