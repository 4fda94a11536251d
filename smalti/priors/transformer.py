"""Decoder-only transformer over text and codes: the second stage of DALL-E."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti import processes
from smalti.priors.attention import Block, CodeTable, GridPositions, Prefix
from smalti.priors.base import CausalPrior, PriorLoss, nats_of
from smalti.priors.layers import Features, behind, by_position, last, previous
from smalti.ranges import CodebookSize, Conditioned, Count, Rank, Share, Size

TEXT_WEIGHT = 1 / 8  # of the text's share of the loss [1]; the codes have the rest


class Transformer(CausalPrior):
    """One stream [1]: a start (or a class), the text's tokens, the codes in raster order; each predicts the next.

    Pre-norm blocks, learned row and column positions. Differs from [1]: full instead of sparse attention, and text and
    codes each have a softmax of their own (the position says which it is), so that `nll` is that of codes given text.

    Shapes:
        codes      (B, h, w)         int64 in [0, K)
        condition  (B, text_length)  int64 tokens, -1 where there is no text; or (B,) classes
        logits     (B, h, w, K)

    Args:
        codebook_size: K.
        grid: (h, w).
        width: of the residual stream, a multiple of `heads`.
        layers: blocks.
        heads: attention heads.
        code_rank: numbers that tell a code from the others, see `CodeTable`; 0 is as many as the width, twice.
        dropout: in training, of the embeddings and of each block's output.
        num_conditions: classes to condition on; 0 is none.
        text_vocabulary: text tokens to condition on; 0 is none.
        text_length: positions of text.

    References:
        [1] Ramesh et al. Zero-Shot Text-to-Image Generation. 2021. arXiv:2102.12092, section 2.2
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize,
        grid: tuple[Size, Size],
        width: Size = 256,
        layers: Count = 4,
        heads: Count = 4,
        code_rank: Rank = 0,
        dropout: Share = 0.0,
        num_conditions: Conditioned = 0,
        text_vocabulary: Conditioned = 0,
        text_length: Conditioned = 0,
    ):
        prefix = Prefix(width, num_conditions, text_vocabulary, text_length)
        super().__init__(codebook_size, grid, prefix.conditions)
        self.prefix, self.codes = prefix, CodeTable(codebook_size, width, code_rank)
        self.positions, self.drop = GridPositions(grid, width), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, layers, causal=True) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), self.codes.head()
        self.text_head = nn.Linear(width, text_vocabulary + 1) if text_length else None  # the last one ends the text

    def begin_with(self, vectors: Tensor) -> None:
        """Code vectors (K, D) for the table of codes, see `CodeTable`."""
        self.codes.begin_with(vectors)

    def _stream(self, codes: Features, condition: Tensor | None) -> Features:
        """The outputs (B, P - 1 + T, width): the last T predict the codes, those before them the text."""
        codes, prefix = codes.flatten(1), self.prefix(codes.shape[0], condition)
        seen = previous(self.codes(codes), prefix[:, -1]) + by_position(codes, self.positions())
        stream = self.drop(behind(prefix[:, :-1], seen))
        for block in self.blocks:
            stream = block(stream)
        return self.norm(stream)

    def _network(self, codes: Features, condition: Tensor | None) -> Features:
        return self.codes.logits(self.head(last(self._stream(codes, condition), self.num_codes)))

    def loss(self, codes: Tensor, condition: Tensor | None) -> PriorLoss:
        """Nats per code; with text 7/8 of that plus 1/8 of the nats per text token (the end of the text is one)."""
        if self.text_head is None or condition is None:
            return super().loss(codes, condition)
        self._check_codes(codes)
        stream = self._stream(codes, self.conditions.check(condition, len(codes)))
        per_code = nats_of(self.codes.logits(self.head(stream[:, -self.num_codes :])), codes.flatten(1)).mean()
        ends = self.text_head.out_features - 1
        before = F.pad(condition, (1, 0), value=-1)[:, :-1]
        targets = torch.where((condition < 0) & (before >= 0), ends, condition)  # what is behind the end stays -1
        text = self.text_head(stream[:, : condition.shape[1]]).float()
        count = (targets >= 0).sum().float()
        count = processes.mean_over(count) if self.training and torch.is_grad_enabled() else count
        summed = F.cross_entropy(text.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
        per_token = summed / count.clamp(min=1)
        bits = {"bits_per_code": per_code, "text_bits_per_token": per_token}
        total = TEXT_WEIGHT * per_token + (1 - TEXT_WEIGHT) * per_code
        return PriorLoss(total, {name: value.detach() / math.log(2) for name, value in bits.items()})
