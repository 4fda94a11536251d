"""What the priors with attention share: blocks, positions, and how a condition enters."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.priors.base import ClassEmbedding, Conditions
from smalti.priors.layers import Features, attend
from smalti.priors.plan import Value


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


class CodeTable(nn.Embedding):
    """What a code is to a transformer: the vector that is read of it, and how likely it is said to be.

    With `rank` 0 these are an embedding and a softmax head, two tables of K x width numbers that know nothing of each
    other. Otherwise one table of K x rank serves both, factorised [1] and tied [2]: a linear layer takes its rows to
    the width of the stream, another, the head, the stream to scores against its rows. A large codebook then costs
    width / rank times less of a step, and `begin_with` tells the prior from the start which codes look alike, which it
    could not learn of codes that it sees a few times.

    Shapes:
        codes   (B, n)         int64 in [0, K + extra)
        stream  (B, n, width)
        logits  (B, n, K)

    Args:
        codebook_size: K.
        width: of the residual stream.
        rank: numbers that tell a code from the others; 0 is two tables of their own.
        extra: further codes that are read but never predicted.

    References:
        [1] Lan et al. ALBERT. 2019. arXiv:1909.11942, section 3.1
        [2] Press, Wolf. Using the Output Embedding to Improve Language Models. 2016. arXiv:1608.05859
    """

    def __init__(self, codebook_size: int, width: int, rank: int, extra: int = 0):
        super().__init__(codebook_size + extra, rank or width)
        self.codebook_size, self.width, self.rank = codebook_size, width, rank
        self.into = nn.Linear(rank, width) if rank else None
        self.bias = nn.Parameter(torch.zeros(codebook_size)) if rank else None
        if self.into is None:
            nn.init.normal_(self.weight, std=0.02)
        else:
            nn.init.normal_(self.into.weight, std=0.02 / rank**0.5)
            nn.init.zeros_(self.into.bias)

    def head(self) -> nn.Linear:
        """A new layer from the stream to what `logits` takes."""
        head = nn.Linear(self.width, self.rank or self.codebook_size)
        if self.rank:
            nn.init.normal_(head.weight, std=0.5 / (self.rank * self.width) ** 0.5)
            nn.init.zeros_(head.bias)
        return head

    def forward(self, input: Features) -> Features:
        """The vectors (B, n, width) of codes."""
        if self.into is None:
            return super().forward(input)
        if isinstance(input, Value):  # steppers look up the vectors themselves
            return input.plan.note(F.embedding, (input, self.into(self.weight)), {})
        return self.into(super().forward(input))

    def logits(self, scores: Features) -> Features:
        """Unnormalised log-probabilities of the K codes, of what the head makes of the stream."""
        return scores if self.bias is None else F.linear(scores, self.weight[: self.codebook_size], self.bias)

    @torch.no_grad()
    def begin_with(self, vectors: Tensor) -> None:
        """Take the code vectors (K, D) of a tokenizer, whitened, as the first columns of the table; rank 0 takes none.

        Of more than `rank` dimensions the directions in which they differ most.
        """
        centred = vectors.float() - vectors.float().mean(0)
        directions, lengths, _ = torch.linalg.svd(centred, full_matrices=False)
        count = min(self.rank, int((lengths > 1e-4 * lengths.max()).sum()))
        if count:
            self.weight[: self.codebook_size, :count] = directions[:, :count] * len(vectors) ** 0.5
