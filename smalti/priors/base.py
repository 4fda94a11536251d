"""The interface of all priors: a member says its logits, and how to step; the rest is derived here."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.modes import evaluating
from smalti.ops.counts import extremes
from smalti.ops.native import kernels_for
from smalti.priors.machine import Machine, NativeStepper, Unknown
from smalti.priors.plan import CachedStepper, Plan
from smalti.priors.sampling import Progress, Rules, SamplePlan, sample_codes
from smalti.shapes import check_shape


class Stepper(Protocol):
    """Goes through the positions of a grid in raster order, with whatever cache makes a step cheap."""

    def step(self, previous: Tensor | None) -> Tensor:
        """The logits (B, K) of the next position.

        Args:
            previous: the codes (B,) int64 of the position before it; None at the first.
        """
        ...


class PriorLoss(NamedTuple):
    """What training minimises, and its named parts for the log."""

    total: Tensor  # scalar
    terms: dict[str, Tensor]  # scalars, detached


@dataclass(frozen=True)
class Conditions:
    """What a prior may be given beside the codes: classes, or text, as integers; -1 stands for nothing.

    Attributes:
        count: the integers lie below it; 0 is an unconditional prior.
        length: None for one class an image, (B,); otherwise text tokens (B, length), filled up with -1.
    """

    count: int = 0
    length: int | None = None

    def check(self, condition: Tensor | None, batch: int) -> Tensor | None:
        """The condition, if it fits.

        Raises:
            SmaltiError: a condition where there should be none, none where there should be one, another shape or range.
        """
        if (condition is None) != (self.count == 0):
            kind = "classes" if self.length is None else "text tokens"
            raise SmaltiError(
                f"this prior takes {f'a condition of {self.count} {kind}' if self.count else 'no condition'}"
            )
        if condition is None:
            return None
        if self.length is None:
            check_shape(condition, "B", "condition", B=batch)
        else:
            check_shape(condition, "B T", "condition", B=batch, T=self.length)
        low, high = extremes(condition)
        if low < -1 or high >= self.count:
            raise SmaltiError(
                f"conditions must lie in [0, {self.count}), or be -1 for none; these lie in [{low}, {high}]"
            )
        return condition


class Packed(dict[Any, Any]):
    """A prior's matrices, as the kernels take them: copies and pickles of the prior have none of them."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Packed, ()


class Prior(nn.Module, ABC):
    """p(codes | condition) for codes (B, h, w) in [0, K).

    Args:
        codebook_size: K.
        grid: (h, w).
        conditions: what it may be conditioned on.

    Attributes:
        codebook_size: K.
        grid: (h, w).
        conditions: what it may be conditioned on.
        causal: the logits at position t depend on codes before t only, in raster order, and there is a `stepper`.
    """

    causal: ClassVar[bool]

    def __init__(self, codebook_size: int, grid: tuple[int, int], conditions: Conditions = Conditions()):
        super().__init__()
        self.codebook_size, self.grid, self.conditions = codebook_size, (grid[0], grid[1]), conditions
        self._packed = Packed()

    @abstractmethod
    def nll(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """-log p(codes | condition), nats per image (B,); a masked prior gives an upper bound and says so."""

    def nll_of_codes(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """-log p of each code given those before it, nats (B, h, w), whose sum over an image is its `nll`.

        Raises:
            SmaltiError: a prior without an order of the positions.
        """
        name = type(self).__name__
        raise SmaltiError(
            f"{name} has no order of positions, so it has bits of an image, not of each code; ask a causal prior"
        )

    @abstractmethod
    def loss(self, codes: Tensor, condition: Tensor | None) -> PriorLoss:
        """What training minimises, for codes (B, h, w) and their condition."""

    @abstractmethod
    def _sample(self, plan: SamplePlan) -> Tensor:
        """Sample codes (B, h * w) as planned, in eval mode and without gradients."""

    def begin_with(self, vectors: Tensor) -> None:
        """Told before training which codes look alike: their vectors (K, D). By default of no use."""
        return

    @property
    def num_codes(self) -> int:
        """T, codes in a grid."""
        return self.grid[0] * self.grid[1]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    def sample(
        self,
        num: int,
        condition: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample `num` grids of codes, (num, h, w) int64.

        Args:
            num: how many.
            condition: (num,) int64 classes or (num, length) text tokens, for a conditional prior.
            generator: of the random numbers; the same ones give the same codes.
            temperature: 0 is greedy.
            top_k: sample from the k most likely codes only.
            top_p: sample from the smallest set of codes with this total probability (nucleus).
            guidance: scale of classifier-free guidance, see `guided`; 1 is none, 0 ignores the condition.
            known: (h, w) or (num, h, w) codes to keep where `mask` says so (inpainting).
            mask: (h, w) bool, True where a code is known. A causal prior samples each of the others given what stands
                before it in raster order, a masked one given all that is known.
            steps: rounds of a masked prior.
            progress: told (done, of) after each step: a code, a row of codes, or a round; what it raises ends the work.

        Raises:
            SmaltiError: rules that make no sense, or a condition, known codes or a mask of another shape.
        """
        rules = Rules(temperature=temperature, top_k=top_k, top_p=top_p)
        if not guidance >= 0:
            raise SmaltiError(f"guidance must not be negative (1 is none), not {guidance}")
        if guidance != 1 and not self.conditions.count:
            raise SmaltiError(f"guidance {guidance} needs a conditional prior; this one takes no condition")
        if steps is not None and self.causal:
            raise SmaltiError(f"a causal prior samples one code a step; steps={steps} is for a masked prior (maskgit)")
        if steps is not None and steps < 1:
            raise SmaltiError(f"steps must be at least 1, not {steps}")
        plan = SamplePlan(
            num=num,
            condition=self.conditions.check(condition, num),
            rules=rules,
            guidance=guidance,
            generator=generator,
            mask=torch.zeros(self.num_codes, dtype=torch.bool),
            known=torch.zeros(num, self.num_codes, dtype=torch.int64, device=self.device),
            steps=steps,
            progress=progress,
        )
        if (known is None) != (mask is None):
            raise SmaltiError("completion needs both known codes and a mask")
        if known is not None and mask is not None:
            height, width = self.grid
            check_shape(mask, "h w", "mask", h=height, w=width)
            known = known if known.ndim == 3 else known[None].expand(num, -1, -1)
            check_shape(known, "B h w", "known", B=num, h=height, w=width)
            self._check_codes(known)
            plan = replace(plan, mask=mask.bool().flatten().cpu(), known=known.flatten(1).to(self.device))
        with torch.inference_mode():
            codes = evaluating(self)._sample(plan)
        return codes.clone().view(num, *self.grid)

    def _check_codes(self, codes: Tensor) -> None:
        check_shape(codes, "B h w", "codes", h=self.grid[0], w=self.grid[1])
        low, high = extremes(codes)
        if low < 0 or high >= self.codebook_size:
            raise SmaltiError(f"codes must lie in [0, {self.codebook_size}); these lie in [{low}, {high}]")


class CausalPrior(Prior):
    """A prior in raster order: p(codes) is the product of p(code at t | codes before t)."""

    causal = True

    @abstractmethod
    def _network(self, codes: Any, condition: Tensor | None) -> Any:
        """Unnormalised log p(code at t | codes before t), (B, *positions, K), of codes (B, h, w).

        The one text of the network, of plain PyTorch at single positions and of `smalti.priors.layers`: it computes all
        positions at once, and given a `Value` records itself for the steppers.
        """

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities of all positions at once (teacher forcing), (B, h, w, K) float32.

        Args:
            codes: (B, h, w) int64.
            condition: (B,) int64 classes or (B, length) text tokens, for a conditional prior.

        Raises:
            SmaltiError: codes of another shape or range, or a condition where there should be none (or none where there
                should be one).
        """
        self._check_codes(codes)
        return self._network(codes, self.conditions.check(condition, codes.shape[0])).view(*codes.shape, -1)

    def nll(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """-log p(codes | condition), nats per image (B,)."""
        return self.nll_of_codes(codes, condition).flatten(1).sum(1)

    def nll_of_codes(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """-log p of each code given those before it, nats (B, h, w)."""
        return nats_of(self.logits(codes, condition), codes)

    def loss(self, codes: Tensor, condition: Tensor | None) -> PriorLoss:
        """Nats per code; reported as bits."""
        per_code = self.nll(codes, condition).mean() / self.num_codes
        return PriorLoss(per_code, {"bits_per_code": per_code.detach() / math.log(2)})

    def stepper(self, batch: int, condition: Tensor | None = None) -> Stepper:
        """A stepper for `batch` grids, native where it can be; its logits equal those of `logits` within rounding."""
        return self._stepper(batch, self.conditions.check(condition, batch))

    def _stepper(self, batch: int, condition: Tensor | None, copies: int = 1) -> CachedStepper | NativeStepper:
        still = evaluating(self)
        plan = Plan(lambda codes: still._network(codes, condition), batch, self.grid)
        native = kernels_for(*self.parameters())
        try:
            machine = native and Machine(native, plan, self._packed)
        except Unknown:
            machine = None
        return NativeStepper(machine, copies) if machine else CachedStepper(plan)

    def _sample(self, plan: SamplePlan) -> Tensor:
        stepper = self._stepper(plan.copies * plan.num, plan.conditions, plan.copies)
        if isinstance(stepper, NativeStepper):
            return stepper.sample(plan)
        codes, previous = plan.known.clone(), None
        for place in plan.told(plan.end):
            logits = plan.rules(plan.answer(stepper.step(previous)))
            sampled = sample_codes(logits, plan.generator)  # where a code is known too: the others keep their noise
            codes[:, place] = plan.known[:, place] if plan.mask[place] else sampled
            previous = plan.asked(codes[:, place])
        return codes


class MaskedPrior(Prior):
    """A prior in no order: p(code at t | the codes that are known), wherever they are."""

    causal = False

    @abstractmethod
    def logits(self, codes: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities of every position given the known codes, (B, h, w, K) float32.

        Args:
            codes: (B, h, w) int64; those that are not known decide nothing.
            known: (B, h, w) bool, True where the code may be seen.
            condition: (B,) int64 classes or (B, length) text tokens, for a conditional prior.

        Raises:
            SmaltiError: codes, known or condition of another shape or range.
        """


def nats_of(logits: Tensor, codes: Tensor) -> Tensor:
    """-log p of each code, nats, in the shape of `codes` (...) for logits (..., K)."""
    flat = F.cross_entropy(logits.float().flatten(0, -2), codes.flatten(), reduction="none")
    return flat.view(codes.shape)


class ClassEmbedding(nn.Embedding):
    """A vector for each class, and one for no class (-1)."""

    def __init__(self, num_conditions: int, width: int):
        super().__init__(num_conditions + 1, width)

    def forward(self, input: Tensor) -> Tensor:
        """Vectors (B, width) for classes (B,)."""
        return super().forward(input % self.num_embeddings)
