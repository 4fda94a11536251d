"""One optimiser step after the other, of one process or of several that train together."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from smalti import processes
from smalti.modes import using
from smalti.ops import randomness
from smalti.training.experiment import Training
from smalti.training.state import TrainState
from smalti.training.tasks import Task

OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}  # fmt: skip # all processes have the same, as they have the same weights: of one seed, or of one checkpoint
VALIDATION_SEED = 0  # of whatever is random in a validation


class Done(NamedTuple):
    """A finished step."""

    scheduled: dict[str, float]
    terms: dict[str, Tensor]  # means over the batch of all processes: detached scalars
    alarm: str | None


class Trainer:
    """Steps of a task, each a function of (experiment, step, state).

    Several processes each take their part of a batch; gradients, terms and statistics are those of the whole. Torch's
    global generator has random numbers for each process alone, `smalti.ops.randomness` those of the batch.

    Args:
        experiment: what is trained.
        task: its model and data.
        state: of the same model.
        autocast: the arithmetic of networks.
        losses: of the task, where they have been made.
    """

    def __init__(
        self,
        experiment: Training,
        task: Task[Any],
        state: TrainState,
        autocast: Callable[[], torch.autocast],
        losses: "Losses | None" = None,
    ):
        self.experiment, self.task, self.state, self.autocast = experiment, task, state, autocast
        self.losses: nn.Module = losses or Losses(task)
        if processes.world() > 1 and not experiment.run.shard:
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels: they are the same bytes
            self.losses = DistributedDataParallel(self.losses, init_sync=False, **OWN_BUFFERS)

    def step(self, batches: Iterator[Tensor], step: int) -> Done:
        """One optimiser step, the one that schedules take for number `step`."""
        run, optimizer = self.experiment.run, self.experiment.optimizer
        seed, own = mixed(run.seed, step + 1), processes.rank() + 1
        torch.manual_seed(seed if processes.world() == 1 else mixed(run.seed, step + 1, own))
        with randomness.shared(seed):
            scheduled = {"learning_rate": optimizer.schedule(step, run.steps), **self.task.before_step(step)}
            terms = self._gradients(batches, step)
            norm = self.state.optimizer_step(scheduled["learning_rate"])
            alarm = self.task.after_step()
        self.state.finish_step()
        names, means = [*terms], processes.mean_over(torch.stack([value.double() for value in terms.values()]))
        return Done(scheduled, {**dict(zip(names, means.unbind(), strict=True)), "gradient_norm": norm}, alarm)

    def _gradients(self, batches: Iterator[Tensor], step: int) -> dict[str, Tensor]:
        """Accumulate the gradient of some batches; returns the terms of their mean loss."""
        terms: dict[str, Tensor] = {}
        accumulate = self.experiment.optimizer.accumulate
        for part in range(1, accumulate + 1):
            apart = isinstance(self.losses, DistributedDataParallel) and part < accumulate
            with processes.peers(), self.losses.no_sync() if apart else contextlib.nullcontext():  # pyright: ignore
                with self.autocast():
                    total, found = self.losses(next(batches), step)
                (total / accumulate).backward()
            for name, value in found.items():
                terms[name] = terms.get(name, 0) + value / accumulate
        return terms

    def validate(self) -> dict[str, float]:
        """What is found on what is held out, see `validated`."""
        return validated(self.task, self.state.averaged, self.autocast)


def validated(task: Task[Any], model: Any, autocast: Callable[[], torch.autocast]) -> dict[str, float]:
    """What the task finds on what is held out, "validation_" before the names; off the training's random numbers."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), using(model) as still, autocast():
        torch.manual_seed(VALIDATION_SEED)
        return {f"validation_{name}": value for name, value in task.validate(still).items()}


class Losses(nn.Module):
    """A task's loss as a module, so that whatever of its model is passed, a wrapper of the module knows of it."""

    def __init__(self, task: Task[Any]):
        super().__init__()
        self.model, self.loss = task.model, task.loss

    def forward(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, and its terms."""
        loss = self.loss(batch, step)
        return loss.total, loss.terms


def mixed(*numbers: int) -> int:
    """A seed for torch's generator: a hash of (seed, step, ...)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
