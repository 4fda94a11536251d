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
MANY = (
    "each process restarts, and starts, code vectors of its own, and DistributedDataParallel sends averages alone:"
    " load the same before it, with restart_below=0, or learn by averages"
)
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
    started: bool  # whether the first values have been taken from data; in a state the tensor `ready`

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
        self.register_state_dict_pre_hook(_catch_up)
        self.register_load_state_dict_post_hook(_loaded)
        self.started = start == "random"
        self.said: set[str] = set()  # warnings
        self._checked: set[int] = set()  # optimisers
        self._forget()
        CODEBOOKS[id(self)] = self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """As of every module. `ready` is no buffer: averages of models, which take all buffers, know no booleans."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}ready"] = torch.tensor(self.started, device=self.table.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        _, strict, missing_keys, _, error_msgs = rest
        ready = state_dict.pop(f"{prefix}ready", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if ready is None and strict:
            missing_keys.append(f"{prefix}ready")
        elif ready is not None and ready.numel() != 1:
            error_msgs.append(f"{prefix}ready must be one boolean, not a tensor of the shape {tuple(ready.shape)}")
        elif ready is not None and not ready.is_meta:
            self.started = bool(ready)

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
        try:
            vectors = torch.as_tensor(vectors)
        except (TypeError, ValueError, RuntimeError):
            raise SmaltiError(f"code vectors must be a tensor, not {type(vectors).__name__}") from None
        if vectors.is_complex() or vectors.is_meta:
            raise SmaltiError(f"code vectors must be real numbers, not {vectors.dtype} on {vectors.device}")
        vectors = vectors.to(self.table)
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

    def _adopt(self) -> None:
        """Let the averages go on from vectors that the user has put into the table, in whatever way.

        All others are sums / share, but for rounding.
        """
        share = self.share[:, None]
        own = torch.isclose(self.table * share, self.sums, rtol=1e-4, atol=0).all(1, keepdim=True)
        self.sums.copy_(torch.where(own | (share <= EPSILON), self.sums, self.table * share))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device = self.table.device
        super()._apply(fn, recurse)
        if self.table.device != device:
            self._forget()
        return self

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

    def _replicate_for_data_parallel(self) -> Self:
        self._warn("the copies of nn.DataParallel learn no code vectors but by gradient; use DistributedDataParallel")
        replica = super()._replicate_for_data_parallel()
        replica.frozen = True
        return replica

    def train(self, mode: bool = True) -> Self:
        """As of every module; what is due is averaged first."""
        if self.training and not mode:
            self.catch_up()
        return super().train(mode)

    def catch_up(self) -> None:
        """Average what is due, in training mode before any forward pass.

        Random numbers stay as they were: a checkpointed forward pass is run twice, and must have the same noise when
        nothing is due any more.
        """
        if self._due:
            with torch.random.fork_rng([self.table.device] if self.table.is_cuda else []):
                self.update()

    @torch.no_grad()
    def prepare(self, vectors: Tensor) -> None:
        """Before a forward pass to learn from: average what is due, or take the first values from (N, D) vectors.

        These are the means of k-means, unless the user has put vectors in.
        """
        self.catch_up()
        if self.learning == "gradient" and (self.restart_below or not self.started) and _processes() > 1:
            self._warn(MANY)
        if self.started or not len(vectors):
            return
        size = len(self.table)
        if not torch.allclose(self.table, self.sums * size, rtol=1e-4):  # put in by the user
            self.sums.copy_(self.vectors / size)
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
        self.started = True

    @torch.no_grad()
    def observe(self, vectors: Tensor, codes: Tensor) -> None:
        """Collect the assignment of (N, D) vectors to (N,) codes for the next update."""
        if not len(codes):
            return
        counted, before = code_counts(codes, len(self.table)), self._counted
        self._counted = counted if before is None else before.add_(counted)
        if self.learning == "ema":
            summed, so_far = torch.zeros_like(self.sums).index_add_(0, codes, vectors), self._summed
            self._summed = so_far.add_(summed) if len(so_far) else summed
        self._seen += len(codes)
        self._recent = vectors.detach()
        self._passes += 1
        if self._passes == PATIENCE:
            why = "no optimiser of PyTorch has stepped, and update() was not called"
            self._warn(f"the codebook has learnt nothing in {PATIENCE} forward passes in training mode: {why}")

    @torch.no_grad()
    def update(self) -> dict[str, Tensor]:
        """Average what was observed since the last call, then restart dead codes; reports how many, a scalar tensor."""
        counted, summed, recent, seen = self._counted, self._summed, self._recent, self._seen
        self._forget()  # at once, should another thread collect
        weight, averages = 1 - self.decay, self.learning == "ema"
        if counted is None or recent is None or not seen or self.frozen or (averages and not len(summed)):
            return {}
        share, sums = counted.to(self.share) / seen, summed / seen
        finite = (sums if averages else recent).sum().isfinite()
        if finite.device.type != "cpu":
            share, sums = torch.where(finite, share, self.share), torch.where(finite, sums, self.sums[: len(sums)])
        elif not finite:  # where asking costs nothing
            self._warn(NOT_FINITE)
            return {"restarted": self.share.new_zeros(())}
        if averages:
            self._adopt()
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

    def _check(self, optimizer: torch.optim.Optimizer) -> None:
        """Say it if an optimiser decays code vectors."""
        if id(optimizer) in self._checked:
            return
        self._checked.add(id(optimizer))
        own = set(map(id, self.parameters()))
        for group in optimizer.param_groups:
            if group.get("weight_decay") and own.intersection(map(id, group["params"])):
                what = f"weight decay of {float(group['weight_decay'])} draws code vectors towards 0"
                self._warn(f"{what}: give what no_weight_decay() names a group with weight_decay=0")

    def _warn(self, what: str) -> None:
        """Say it once."""
        if what not in self.said:
            self.said.add(what)
            warnings.warn(what, stacklevel=2)


CODEBOOKS: WeakValueDictionary[int, Codebook] = WeakValueDictionary()


def _stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """After a step of any optimiser, what was collected is due."""
    for reference in CODEBOOKS.valuerefs():
        codebook = reference()
        if codebook is not None and codebook._seen:
            codebook._due = True
            codebook._check(optimizer)


register_optimizer_step_post_hook(_stepped)


def _catch_up(codebook: nn.Module, *_: Any) -> None:
    assert isinstance(codebook, Codebook)
    if codebook.training:
        codebook.catch_up()


def _loaded(codebook: nn.Module, _: Any) -> None:
    """What was collected belongs to the values before."""
    assert isinstance(codebook, Codebook)
    codebook._forget()


def _processes() -> int:
    """How many train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _pick(vectors: Tensor, num: int) -> Tensor:
    """Pick `num` of (N, D) vectors at random: without repetition where N allows it, else with a little noise."""
    count = len(vectors)
    chosen = vectors[torch.randperm(count, device=vectors.device).repeat(-(-num // count))[:num]]
    if num > count:
        chosen[count:] += JITTER * vectors.std(0, correction=0) * torch.randn_like(chosen[count:])
    return chosen
