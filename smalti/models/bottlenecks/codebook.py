"""The K x D table of code vectors with its bookkeeping: first values from data, averages, restart of dead codes."""

import warnings
from collections.abc import Callable
from typing import Any, Literal, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from smalti import processes
from smalti.errors import SmaltiError
from smalti.models.bottlenecks.layer import Layer
from smalti.models.bottlenecks.rows import Rows
from smalti.ops import randomness
from smalti.ops.counts import code_counts

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

    `update` need not be called: it follows every step of an optimiser of PyTorch, of averages that of any, of vectors
    learnt by gradient that of their own. Batches between two steps are one update either way. Nothing is collected in
    eval mode, under `no_grad`, when frozen, or of a step with features that are not finite.

    Processes that train together (`torch.distributed`) keep one codebook: it starts from the features of all, averages
    over all, and a dead code becomes the same vector in each. They meet in the first forward pass to learn from, and
    after steps of the optimiser; `alone` keeps them apart.

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
        self.register_load_state_dict_post_hook(_loaded)
        self.started = start == "random"
        self.said: set[str] = set()  # warnings
        self._checked: set[int] = set()  # optimisers
        self._met = False  # whether all processes are known to have the same vectors
        self._restarted: Tensor | None = None  # codes, since `update` was last asked
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
        self._passes = 0
        self._recent: Tensor | None = None

    def _replicate_for_data_parallel(self) -> Self:
        self._warn("the copies of nn.DataParallel learn no code vectors but by gradient; use DistributedDataParallel")
        replica = super()._replicate_for_data_parallel()
        replica.frozen = True
        return replica

    @torch.no_grad()
    def prepare(self, vectors: Tensor) -> Rows | None:
        """Before a forward pass to learn from: the first values, if there are none, from vectors (N, D).

        These are the means of k-means, unless the user has put vectors in. Returns the vectors of all processes, where
        the first values were made of them now.
        """
        if self.together and not self._met:
            self._meet()
        if self.started:
            return None
        rows = Rows(vectors, self.together, randomness.seed())
        if not len(rows):
            return None
        size = len(self.table)
        if not torch.allclose(self.table, self.sums * size, rtol=1e-4):  # put in by the user
            self.sums.copy_(self.vectors / size)
        elif rows.sum(vectors.square().sum()).isfinite():
            means = rows.means(size)
            self._set(means)
            self.sums.copy_(means / size)
        else:
            return self._warn(NOT_FINITE)
        self.started = True
        return rows

    def _meet(self) -> None:
        """Go on from the first process's vectors, which may have been loaded there alone."""
        processes.like_first([self.table, self.share, self.sums])
        self.started = bool(processes.gathered(torch.tensor([self.started], device=self.table.device).int())[0])
        self._met = True

    @torch.no_grad()
    def observe(self, vectors: Tensor, codes: Tensor) -> None:
        """Collect the assignment of (N, D) vectors to (N,) codes for the next update; N may be 0 in some processes."""
        counted, before = code_counts(codes, len(self.table)), self._counted
        self._counted = counted if before is None else before.add_(counted)
        if self.learning == "ema":
            summed, so_far = torch.zeros_like(self.sums).index_add_(0, codes, vectors), self._summed
            self._summed = so_far.add_(summed) if len(so_far) else summed
        if self._recent is None or len(codes):
            self._recent = vectors.detach()
        self._passes += 1
        if self._passes == PATIENCE:
            why = "no optimiser of PyTorch has stepped, and update() was not called"
            self._warn(f"the codebook has learnt nothing in {PATIENCE} forward passes in training mode: {why}")

    def update(self) -> dict[str, Tensor]:
        """Average what was observed since the last step, then restart dead codes.

        Reports how many were restarted since the last call, a scalar tensor, or nothing where nothing was observed.
        """
        self._move()
        restarted, self._restarted = self._restarted, None
        return {} if restarted is None else {"restarted": restarted}

    @torch.no_grad()
    def _move(self) -> None:
        """Average and restart, if there was a forward pass to learn from."""
        counted, summed, recent = self._counted, self._summed, self._recent
        weight, averages = 1 - self.decay, self.learning == "ema"
        self._forget()  # at once, should another thread collect
        if counted is None or recent is None or self.frozen or (averages and not len(summed)):
            return
        collected = torch.cat([counted.to(self.share), recent.sum()[None], summed.flatten()])
        told = processes.sum_over(collected) if self.together else collected
        share, check, sums = told[: len(counted)], told[len(counted)], told[len(counted) + 1 :].view_as(summed)
        seen = share.sum()
        share, sums = share / seen.clamp(min=1), sums / seen.clamp(min=1)
        finite = (sums.sum() if averages else check).isfinite()
        known = finite & (seen > 0)
        if known.device.type != "cpu":
            share, sums = torch.where(known, share, self.share), torch.where(known, sums, self.sums[: len(sums)])
        elif not finite:  # where asking costs nothing
            self._warn(NOT_FINITE)
        if known.device.type != "cpu" or known:
            self._average(share, sums, weight)
        restarted = self._restart(recent, known) if self.restart_below else self.share.new_zeros(())
        self._restarted = restarted if self._restarted is None else self._restarted + restarted

    def _average(self, share: Tensor, sums: Tensor, weight: float) -> None:
        if len(sums):
            self._adopt()
        self.share.lerp_(share, weight)
        if len(sums):
            self.sums.lerp_(sums, weight)
            used = (self.share > EPSILON)[:, None]  # the others would shrink with their sums
            self._set(torch.where(used, self.sums / self.share.clamp(min=EPSILON)[:, None], self.table))

    def _restart(self, recent: Tensor, known: Tensor) -> Tensor:
        size, none = len(self.table), self.share.new_zeros(())
        dead = (self.share < self.restart_below / size) & known
        if dead.device.type == "cpu" and not dead.any():  # where asking costs nothing
            return none
        rows = Rows(recent, self.together, randomness.seed())
        if not len(rows):
            return none
        fresh = rows.pick(size)
        self._set(torch.where(dead[:, None], fresh, self.vectors))
        self.sums.copy_(torch.where(dead[:, None], fresh / size, self.sums))
        self.share.masked_fill_(dead, 1 / size)
        return dead.sum().to(self.share)

    def no_weight_decay(self) -> set[str]:
        """The table and the matrix, where they are parameters."""
        return {name for name, _ in self.named_parameters()}

    def _after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move: averages after any step, but parameters, which a backward pass may still need, after their own."""
        self._check(optimizer)
        own = [*self.parameters()]
        if not own or any(parameter is own[0] for group in optimizer.param_groups for parameter in group["params"]):
            self._move()

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
    """After a step of any optimiser."""
    for reference in CODEBOOKS.valuerefs():
        codebook = reference()
        if codebook is not None and codebook._passes:
            codebook._after_step(optimizer)


register_optimizer_step_post_hook(_stepped)


def _loaded(codebook: nn.Module, _: Any) -> None:
    """What was collected belongs to the values before."""
    assert isinstance(codebook, Codebook)
    codebook._forget()
