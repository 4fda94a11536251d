"""The K x D table of code vectors with its bookkeeping: first values from data, averages, restart of dead codes."""

import warnings
from collections.abc import Callable
from typing import Any, Literal, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from smalti.errors import SmaltiError
from smalti.models.bottlenecks.layer import Layer
from smalti.ops.counts import code_counts
from smalti.ops.nearest import nearest_code

KMEANS_ITERATIONS = 10
JITTER = 0.1  # of vectors picked twice, in standard deviations of the vectors: equal code vectors could never part
EPSILON = 1e-8
PATIENCE = 100  # forward passes without a step after which a warning says that nothing is learnt
NOT_FINITE = "features hold NaN or infinity: the codebook learns nothing from their step"
Learning = Literal["ema", "gradient", "simvq"]


class Codebook(Layer):
    """Code vectors that start from data, and that come back to life when nothing is assigned to them.

    All statistics are fractions of the vectors seen, so they mean the same at every batch size: a code that gets its
    uniform share has a `share` of 1/K. `observe` collects during the forward passes of a step, `update` (once after the
    step) averages and restarts: the average over steps is that of van den Oord et al. (arXiv:1711.00937, appendix A.1),
    the restart that of Dhariwal et al. (Jukebox, arXiv:2005.00341, section 3.1).

    `update` need not be called: what was collected before a step of any optimiser of PyTorch is averaged before more is
    collected after it, and before the mode changes or `state_dict` is read. Batches between two steps are one update
    either way. Nothing is collected in eval mode, under `no_grad`, when frozen, or of a step with features that are not
    finite.

    Args:
        size: K, at least 2.
        dim: D.
        learning: "ema" (a buffer: the moving average of the vectors assigned to a code), "gradient" (a parameter), or
            "simvq": fixed vectors times a learned D x D matrix, so that every step moves all codes (arXiv:2411.02038).
        decay: of the moving averages, per optimiser step.
        restart_below: a code whose share falls below this fraction of 1/K becomes a random recent vector; 0 is never.
        start: "kmeans" of the first batch, or "random": uniform with variance 1/D, as in the authors' code (Sonnet).
            Vectors that were put in before the first batch stay, see `load_vectors`.
    """

    table: Tensor  # (K, D), what is stored: the vectors, or what the matrix makes them of
    share: Tensor  # (K,) moving average of the fraction of vectors assigned to each code
    sums: Tensor  # (K, D) moving average of (sum of assigned vectors) / (number of vectors)
    ready: Tensor  # (), whether the first values have been taken from data

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        learning: Learning,
        decay: float,
        restart_below: float,
        start: Literal["kmeans", "random"] = "kmeans",
    ):
        super().__init__()
        if size < 2:
            raise SmaltiError(f"codebook_size must be at least 2, not {size}")
        if learning not in ("ema", "gradient", "simvq"):
            raise SmaltiError(f"learning must be 'ema', 'gradient' or 'simvq', not {learning!r}")
        if not 0 <= decay < 1 or not 0 <= restart_below < 1:
            raise SmaltiError(f"decay and restart_below must lie in [0, 1), not {decay} and {restart_below}")
        self.learning, self.decay, self.restart_below = learning, decay, restart_below
        if start not in ("kmeans", "random"):
            raise SmaltiError(f"start must be 'kmeans' or 'random', not {start!r}")
        vectors = (2 * torch.rand(size, dim, dtype=torch.float32) - 1) * (3 / dim) ** 0.5
        if learning == "gradient":
            self.table = nn.Parameter(vectors)
        else:
            self.register_buffer("table", vectors)
        self.matrix = nn.Parameter(torch.eye(dim, dtype=torch.float32)) if learning == "simvq" else None
        self.register_buffer("share", torch.full((size,), 1 / size, dtype=torch.float32))
        self.register_buffer("sums", vectors / size)
        self.register_buffer("ready", torch.tensor(start == "random"))
        self.register_state_dict_pre_hook(_catch_up)
        self.register_load_state_dict_post_hook(_loaded)
        self._started = start == "random"
        self.said: set[str] = set()  # warnings
        self._forget()
        self._note()
        CODEBOOKS[id(self)] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy."""
        super().__setstate__(state)
        CODEBOOKS[id(self)] = self

    @property
    def vectors(self) -> Tensor:
        """The code vectors (K, D), with their gradient."""
        return self.table if self.matrix is None else self.table @ self.matrix

    @torch.no_grad()
    def load_vectors(self, vectors: Tensor) -> None:
        """Put code vectors (K, D) of one's own in; averages go on from them, and k-means does not replace them.

        Codes that get too little restart all the same, unless `restart_below` is 0; `freeze` keeps everything.

        Raises:
            SmaltiError: another shape, or numbers that are not finite.
        """
        vectors = torch.as_tensor(vectors).to(self.table)
        if vectors.shape != self.table.shape:
            raise SmaltiError(f"this codebook holds {tuple(self.table.shape)} vectors, not {tuple(vectors.shape)}")
        if not vectors.isfinite().all():
            raise SmaltiError("code vectors must be finite; these hold NaN or infinity")
        self._forget()
        self._set(vectors)
        self.share.fill_(1 / len(self.table))
        self.sums.copy_(vectors / len(self.table) if self.started else torch.zeros_like(vectors))

    def _set(self, vectors: Tensor) -> None:
        self.table.copy_(vectors if self.matrix is None else torch.linalg.solve(self.matrix, vectors, left=False))
        self._note()

    @property
    def _stamp(self) -> tuple[int, int]:
        return id(self.table), 0 if self.table.is_inference() else self.table._version

    def _note(self) -> None:
        """Remember the table as it was written here: a later version of the same tensor was written by the user."""
        self._written = self._stamp

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        own, device = self._written == self._stamp, self.table.device
        super()._apply(fn, recurse)
        if own:
            self._note()
        if self.table.device != device:
            self._forget()
        return self

    @property
    def started(self) -> bool:
        """Whether the first values have been taken from data; a device is asked until they have, and never again."""
        self._started = self._started or bool(self.ready)
        return self._started

    @property
    def learns(self) -> bool:
        """Whether a forward pass now is one to learn from."""
        fixed = self.frozen or not all(parameter.requires_grad for parameter in self.parameters())
        return self.training and torch.is_grad_enabled() and not fixed

    def _forget(self) -> None:
        self._counted: Tensor | None = None  # (K,) int64
        self._summed = self.sums.new_empty(0, self.sums.shape[1])  # (K, D) once something is collected
        self._seen = self._passes = 0
        self._recent: Tensor | None = None
        self._due = False  # whether an optimiser has stepped since something was collected

    def train(self, mode: bool = True) -> Self:
        """As of every module; what is due is averaged first."""
        if self.training and not mode:
            self.catch_up()
        return super().train(mode)

    def catch_up(self) -> None:
        """Average what is due."""
        if self._due:
            self.update()

    @torch.no_grad()
    def prepare(self, vectors: Tensor) -> None:
        """Before a forward pass to learn from: average what is due, or take the first values from (N, D) vectors.

        These are the means of k-means, unless the user has put vectors in.
        """
        self.catch_up()
        if self.started or not len(vectors):
            return
        size = len(self.table)
        if not torch.allclose(self.table, self.sums * size, rtol=1e-4):  # put in by the user
            self.sums.copy_(self.vectors / size)
            self._note()
        elif vectors.square().sum().isfinite():
            means = _pick(vectors, size)
            for _ in range(KMEANS_ITERATIONS):
                codes = nearest_code(vectors, means)
                counts = code_counts(codes, size).to(vectors)
                sums = torch.zeros_like(means).index_add_(0, codes, vectors)
                means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], _pick(vectors, size))
            self._set(means)
            self.sums.copy_(means / size)
        else:
            return self._warn(NOT_FINITE)
        self.ready.fill_(True)

    @torch.no_grad()
    def observe(self, vectors: Tensor, codes: Tensor) -> None:
        """Collect the assignment of (N, D) vectors to (N,) codes for the next update."""
        if not len(codes):
            return
        counted = code_counts(codes, len(self.table))
        self._counted = counted if self._counted is None else self._counted.add_(counted)
        if self.learning == "ema":
            summed = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
            self._summed = self._summed.add_(summed) if len(self._summed) else summed
        self._seen += len(codes)
        self._recent = vectors.detach()
        self._passes += 1
        if self._passes == PATIENCE:
            why = "no optimiser of PyTorch has stepped, and update() was not called"
            self._warn(f"the codebook has learnt nothing in {PATIENCE} forward passes in training mode: {why}")

    @torch.no_grad()
    def update(self) -> dict[str, Tensor]:
        """Average what was observed since the last call, then restart dead codes; reports how many, a scalar tensor."""
        counted, recent, seen = self._counted, self._recent, self._seen
        if counted is None or recent is None or self.frozen:
            self._forget()
            return {}
        weight, averages = 1 - self.decay, self.learning == "ema"
        share, sums = counted.to(self.share) / seen, self._summed / seen
        self._forget()
        finite = (sums if averages else recent).sum().isfinite()
        if finite.device.type != "cpu":
            share, sums = torch.where(finite, share, self.share), torch.where(finite, sums, self.sums[: len(sums)])
        elif not finite:  # where asking costs nothing
            self._warn(NOT_FINITE)
            return {"restarted": self.share.new_zeros(())}
        if averages and self._written[0] == id(self.table) and self._written != self._stamp:
            self.sums.copy_(self.table * self.share[:, None])  # the user has put vectors in
        self.share.lerp_(share, weight)
        if averages:
            self.sums.lerp_(sums, weight)
            used = (self.share > EPSILON)[:, None]  # the others would shrink with their sums
            self._set(torch.where(used, self.sums / self.share.clamp(min=EPSILON)[:, None], self.table))
        return {"restarted": self._restart(recent, finite) if self.restart_below else self.share.new_zeros(())}

    def _restart(self, recent: Tensor, finite: Tensor) -> Tensor:
        size = len(self.table)
        dead = (self.share < self.restart_below / size) & finite
        fresh = _pick(recent, size)
        self._set(torch.where(dead[:, None], fresh, self.vectors))
        self.sums.copy_(torch.where(dead[:, None], fresh / size, self.sums))
        self.share.masked_fill_(dead, 1 / size)
        return dead.sum().to(self.share)

    def no_weight_decay(self) -> set[str]:
        """The table and the matrix, where they are parameters."""
        return {name for name, _ in self.named_parameters()}

    def _warn(self, what: str) -> None:
        """Say it once."""
        if what not in self.said:
            self.said.add(what)
            warnings.warn(what, stacklevel=2)


CODEBOOKS: WeakValueDictionary[int, Codebook] = WeakValueDictionary()


def _stepped(*_: Any) -> None:
    """After a step of any optimiser, what was collected is due."""
    for reference in CODEBOOKS.valuerefs():
        codebook = reference()
        if codebook is not None and codebook._seen:
            codebook._due = True


register_optimizer_step_post_hook(_stepped)


def _catch_up(codebook: nn.Module, *_: Any) -> None:
    assert isinstance(codebook, Codebook)
    if codebook.training:
        codebook.catch_up()


def _loaded(codebook: nn.Module, _: Any) -> None:
    """What was collected belongs to the values before."""
    assert isinstance(codebook, Codebook)
    codebook._started = False
    codebook._forget()
    codebook._note()


def _pick(vectors: Tensor, num: int) -> Tensor:
    """Pick `num` of (N, D) vectors at random: without repetition where N allows it, else with a little noise."""
    count = len(vectors)
    chosen = vectors[torch.randperm(count, device=vectors.device).repeat(-(-num // count))[:num]]
    if num > count:
        chosen[count:] += JITTER * vectors.std(0, correction=0) * torch.randn_like(chosen[count:])
    return chosen
