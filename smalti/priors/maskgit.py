"""MaskGIT: a bidirectional transformer that fills in hidden codes, many at a time."""

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.ops import randomness
from smalti.priors.attention import Block, CodeTable, GridPositions, Prefix
from smalti.priors.base import MaskedPrior, PriorLoss, nats_of
from smalti.priors.sampling import SamplePlan, gumbel_noise, sample_codes
from smalti.ranges import CodebookSize, Conditioned, Count, Range, Rank, Share, Size
from smalti.shapes import check_shape

DEFAULT_STEPS = 12
NLL_SAMPLES = 16  # sets of hidden positions per image in the estimate of the bound


class MaskGIT(MaskedPrior):
    """Masked generative transformer [1]. Not causal: a hidden position sees every code that is known, wherever it is.

    Training hides a share cos(pi r / 2), r uniform, of the codes and predicts them. Sampling starts with all codes
    hidden; in each of `steps` rounds every hidden code is sampled, and the most confident samples are kept, so many
    that a share cos(pi s / 2 steps) stays hidden after round s. Confidence is the sample's log-probability plus Gumbel
    noise of the temperature `order_temperature`, which falls linearly to 0 in the last round.

    With as many rounds as codes and an infinite `order_temperature` codes are sampled one by one in random order, and
    `nll` bounds that distribution: -log p(codes) <= the mean over orders of the sum of -log p(code | codes known) [2].
    Codes kept in the same round are sampled independently: quicker, and no longer from that distribution.

    Shapes:
        codes   (B, h, w)     int64 in [0, K)
        known   (B, h, w)     bool, True where the code may be seen
        logits  (B, h, w, K)

    Args:
        codebook_size: K.
        grid: (h, w).
        width: of the residual stream, a multiple of `heads`.
        layers: blocks.
        heads: attention heads.
        code_rank: numbers that tell a code from the others, see `CodeTable`; 0 is as many as the width, twice.
        dropout: in training, of the embeddings and of each block's output.
        order_temperature: of the noise in the choice of which samples are kept; inf is a random order.
        num_conditions: classes to condition on; 0 is none.
        text_vocabulary: text tokens to condition on; 0 is none.
        text_length: positions of text.

    References:
        [1] Chang et al. MaskGIT: Masked Generative Image Transformer. 2022. arXiv:2202.04200
        [2] Hoogeboom et al. Autoregressive Diffusion Models. 2021. arXiv:2110.02037, equation 4
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
        order_temperature: Annotated[float, Range(0, math.inf)] = 4.5,
        num_conditions: Conditioned = 0,
        text_vocabulary: Conditioned = 0,
        text_length: Conditioned = 0,
    ):
        prefix = Prefix(width, num_conditions, text_vocabulary, text_length)
        super().__init__(codebook_size, grid, prefix.conditions)
        if not order_temperature >= 0:
            raise SmaltiError(f"order_temperature must not be negative, not {order_temperature}")
        self.prefix, self.order_temperature = prefix, order_temperature
        self.codes = CodeTable(codebook_size, width, code_rank, extra=1)  # the last one is "hidden"
        self.positions, self.drop = GridPositions(grid, width), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, layers, causal=False) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), self.codes.head()

    def begin_with(self, vectors: Tensor) -> None:
        """Code vectors (K, D) for the table of codes, see `CodeTable`."""
        self.codes.begin_with(vectors)

    def logits(self, codes: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        """As of `MaskedPrior.logits`."""
        self._check_codes(codes)
        check_shape(known, "B h w", "known", B=codes.shape[0], h=self.grid[0], w=self.grid[1])
        condition = self.conditions.check(condition, codes.shape[0])
        return self._logits(codes.flatten(1), known.flatten(1), condition).view(*codes.shape, -1)

    def _logits(self, codes: Tensor, known: Tensor, condition: Tensor | None) -> Tensor:
        """(B, T, K) for codes and known (B, T)."""
        seen = torch.where(known, codes, self.codebook_size)
        prefix = self.prefix(codes.shape[0], condition)
        stream = self.drop(torch.cat([prefix, self.codes(seen) + self.positions()], dim=1))
        for block in self.blocks:
            stream = block(stream)
        return self.codes.logits(self.head(self.norm(stream[:, -self.num_codes :])))

    def loss(self, codes: Tensor, condition: Tensor | None) -> PriorLoss:
        """Nats per hidden code, at shares of hidden codes as sampling will meet them."""
        self._check_codes(codes)
        flat = codes.flatten(1)
        like = torch.empty(0, device=flat.device)
        shares = torch.cos(math.pi / 2 * randomness.uniform(len(flat), 1, like=like))
        counts = (shares * self.num_codes).ceil().long().clamp(min=1)
        hidden = _hide(randomness.uniform(*flat.shape, like=like), counts)
        nats = nats_of(self._logits(flat, ~hidden, self.conditions.check(condition, len(codes))), flat)
        per_code = ((nats * hidden).sum(1) / hidden.sum(1)).mean()
        return PriorLoss(per_code, {"bits_per_hidden_code": per_code.detach() / math.log(2)})

    def nll(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """An upper bound on -log p(codes | condition) in random order, nats per image (B,).

        An unbiased estimate of the bound: a stratified choice of how many codes are hidden, a random choice of which,
        the same for every image and at every call.
        """
        self._check_codes(codes)
        condition, flat = self.conditions.check(condition, len(codes)), codes.flatten(1)
        generator, length = torch.Generator().manual_seed(0), self.num_codes
        samples = min(NLL_SAMPLES, length)
        total = torch.zeros(len(flat), device=flat.device)
        for index in range(samples):
            place = (index + torch.rand((), generator=generator).item()) / samples
            count = 1 + min(length - 1, int(place * length))
            hidden = _hide(torch.rand(1, length, generator=generator), torch.tensor([[count]])).to(flat.device)
            nats = nats_of(self._logits(flat, ~hidden.expand_as(flat), condition), flat)
            total = total + (nats * hidden).sum(1) * length / count / samples
        return total

    def _sample(self, plan: SamplePlan) -> Tensor:
        codes, device = plan.known.clone(), plan.known.device
        known = plan.mask.to(device).expand_as(codes).clone()
        unknown = int((~plan.mask).sum())
        steps = min(plan.steps or DEFAULT_STEPS, unknown)
        for step in plan.told(steps):
            logits = plan.answer(self._logits(plan.asked(codes), plan.asked(known), plan.conditions))
            sampled = sample_codes(plan.rules(logits.flatten(0, 1)), plan.generator).view(codes.shape)
            codes = torch.where(known, codes, sampled)
            hidden = min(int(unknown * math.cos(math.pi / 2 * (step + 1) / steps) + 1e-6), unknown - step - 1)
            known = self._keep(-nats_of(logits, codes), known, hidden, 1 - (step + 1) / steps, plan.generator)
        return codes

    def _keep(
        self, log_p: Tensor, known: Tensor, num_hidden: int, noise: float, generator: torch.Generator | None
    ) -> Tensor:
        """Which codes (B, T) are known after a round: all but the `num_hidden` least confident of the new ones."""
        gumbel = gumbel_noise(log_p, generator)
        random_order = math.isinf(self.order_temperature)
        confidence = gumbel if random_order else log_p + self.order_temperature * noise * gumbel
        order = confidence.masked_fill(known, math.inf).argsort(dim=1, stable=True)
        return torch.ones_like(known).scatter(1, order[:, :num_hidden], False)


def _hide(uniform: Tensor, counts: Tensor) -> Tensor:
    """Random sets of positions, True where hidden, (B, T), of the sizes `counts` (B, 1), by random numbers (B, T)."""
    return uniform.argsort(dim=1).argsort(dim=1) < counts
