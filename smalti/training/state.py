"""The training state in one checkpoint, written atomically: weights, averaged weights, optimiser, step, log."""

import copy
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from smalti import processes
from smalti.errors import SmaltiError, cut
from smalti.files import read_checked, write_checked
from smalti.pretrained import Pretrained
from smalti.training import parts
from smalti.training.experiment import OptimizerConfig
from smalti.training.muon import Muon, hidden_kernels

KEPT_CHECKPOINTS = 2
NUMBER_RATE = 5.0  # learning rates of single numbers (log scales) are multiplied by this


def make_optimizers(
    model: nn.Module, config: OptimizerConfig, precision: Literal["fp32", "bf16"] = "fp32"
) -> list[torch.optim.Optimizer]:
    """AdamW in three groups: matrices (with weight decay), vectors (without), single numbers (faster); perhaps Muon.

    What a model's `no_weight_decay()` names, such as code vectors, is among the vectors. The precision is Muon's.

    Raises:
        SmaltiError: a rate for Muon, and no kernels for it.
    """
    kernels = hidden_kernels(model) if config.muon_rate else []
    if config.muon_rate and not kernels:
        raise SmaltiError(f"muon_rate {config.muon_rate} has no effect: no kernels inside this network; leave it out")
    taken, vectors = set(map(id, kernels)), getattr(model, "no_weight_decay", set)()
    parameters = [item for item in model.parameters() if item.requires_grad and id(item) not in taken]
    axes = {id(item): min(item.ndim, 1 if name in vectors else 2) for name, item in model.named_parameters()}
    groups = []
    for count, weight_decay, rate in ((2, config.weight_decay, 1.0), (1, 0.0, 1.0), (0, 0.0, NUMBER_RATE)):
        if members := [parameter for parameter in parameters if axes[id(parameter)] == count]:
            groups.append({"params": members, "weight_decay": weight_decay, "rate": rate})
    adam = torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return [adam, Muon([{"params": kernels, "rate": config.muon_rate}], dtype=dtype)] if kernels else [adam]


class TrainState:
    """The model, on its device, its moving average and its optimisers."""

    suffix = ".safetensors"  # of the names of its checkpoints

    def __init__(
        self,
        model: Pretrained,
        config: OptimizerConfig,
        precision: Literal["fp32", "bf16"] = "fp32",
        average: Pretrained | None = None,
    ):
        self.model, self.config, self.step = model, config, 0
        self.optimizers = make_optimizers(model, config, precision)
        self.average = average or (copy.deepcopy(model) if config.ema_decay else None)  # equal: no special first step
        self.parameters: list[Tensor] = list(model.parameters())

    @property
    def averaged(self) -> Pretrained:
        """The model to save, evaluate and sample from."""
        return self.model if self.average is None else self.average

    def gather(self) -> None:
        """See to it that `averaged` is up to date, by all processes together."""

    def optimizer_step(self, learning_rate: float) -> Tensor:
        """Clip, step, average; returns the gradient's norm before clipping."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate * group["rate"]
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or float("inf"))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def finish_step(self) -> None:
        """Update the moving average and count the step; called after the update of the codebook.

        Parameters are averaged; buffers (moving averages of their own, step counts) are copied.
        """
        if self.average is not None:
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            averaged_parameters: list[Tensor] = list(self.average.parameters())
            torch._foreach_lerp_(averaged_parameters, self.parameters, 1 - decay)
            for averaged, current in zip(self.average.buffers(), self.model.buffers(), strict=True):
                averaged.copy_(current)
        self.step += 1

    def checkpoint(self, path: Path, extra: Mapping[str, Tensor], record: Mapping[str, Any]) -> "Checkpoint":
        """All that the training goes on from, as a file at `path` would hold it."""
        tensors = prefixed("model", self.model.state_dict()) | prefixed("extra", extra)
        if self.average is not None:
            tensors |= prefixed("average", self.average.state_dict())
        for optimizer in self.optimizers:
            tensors |= prefixed("optimizer", moments_of(self.model, optimizer))
        return Checkpoint(path, {name: value.clone() for name, value in tensors.items()}, {"step": self.step, **record})

    @property
    def name(self) -> str:
        """Of a checkpoint of now."""
        return f"step-{self.step:09d}{self.suffix}"

    def save(self, folder: Path, extra: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write checkpoints/step-N.safetensors, then delete all but it and the one before; by the first process."""
        if processes.is_first():
            self.checkpoint(folder / self.name, extra, record).write()
        self.keep_newest(folder)

    def keep_newest(self, folder: Path) -> None:
        """Delete all checkpoints but the two newest up to now: a later one was damaged. By the first process."""
        found = checkpoints(folder) if processes.is_first() else {}
        kept = [number for number in found if number <= self.step][-KEPT_CHECKPOINTS:]
        for number, path in found.items():
            if number not in kept:
                parts.remove(path) if path.is_dir() else path.unlink()

    def restore(self, checkpoint: "Checkpoint") -> dict[str, Tensor]:
        """Restore a checkpoint; returns its extra tensors.

        Raises:
            SmaltiError: it is not a checkpoint of this model.
        """
        part = {kind: under(checkpoint.tensors, kind) for kind in ("model", "average", "optimizer", "extra")}
        try:
            self.model.load_state_dict(part["model"])
            if self.average is not None:
                self.average.load_state_dict(part["average"])
        except RuntimeError as error:
            raise SmaltiError(
                f"{checkpoint.path} is of another model: {cut(str(error).splitlines()[1], 120)}"
            ) from error
        for optimizer in self.optimizers:
            load_moments(self.model, optimizer, part["optimizer"])
        self.step = checkpoint.step
        return part["extra"]


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    path: Path
    tensors: dict[str, Tensor]
    record: Mapping[str, Any]  # "step", and what was given to `TrainState.save`

    @property
    def step(self) -> int:
        """Steps that were done."""
        return self.record["step"]

    def write(self) -> None:
        """Write the file, atomically; a path without a suffix is a folder of parts, written by all processes."""
        if self.path.suffix:
            write_checked(self.path, self.tensors, dict(self.record))
        else:
            parts.write_parts(self.path, self.tensors, self.record)


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by the steps that their names say, the newest last."""
    named = {path: re.fullmatch(r"step-(\d+)(\.safetensors)?", path.name) for path in sorted(folder.glob("step-*"))}
    whole = {path: match for path, match in named.items() if path.is_file() == bool(match and match[2])}
    return dict(sorted((int(match[1]), path) for path, match in whole.items() if match and _is_whole(path)))


def _is_whole(path: Path) -> bool:
    return path.is_file() or parts.is_whole(path)


def newest_checkpoint(folder: Path, in_parts: bool = False) -> Checkpoint | None:
    """The newest checkpoint that is not damaged, with a warning where a newer one is; None where there is none.

    `in_parts` leaves the tensors of one in parts to each process, which reads its own.

    Raises:
        SmaltiError: there are some, and all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(folder).values()):
        try:
            if path.is_file():
                tensors, record = read_checked(path)
            else:
                tensors, record = ({}, parts.read_record(path)) if in_parts else parts.read_parts(path)
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise SmaltiError(f"{path} is not a checkpoint; remove it")
        except SmaltiError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{damaged[0]}; the run goes on from {path.name}, step {record['step']}", stacklevel=3)
        return Checkpoint(path, tensors, record)
    if damaged:
        rest = f" (so are {len(damaged) - 1} older ones)" if len(damaged) > 1 else ""
        raise SmaltiError(f"{damaged[0]}{rest}; without checkpoints the run begins anew")
    return None


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser state of a model's parameters, named PARAMETER.KEY."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the optimiser state from `moments_of`, for the parameters of this optimiser; what it had is gone."""
    optimizer.state.clear()
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        moments = under(tensors, name)
        if moments and id(parameter) in own:
            optimizer.state[parameter] = {key: _laid_out_like(parameter, value) for key, value in moments.items()}


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment with its parameter's device and strides: the fused step traverses both in memory order.

    Files hold contiguous tensors; a channels-last weight with a contiguous moment would be updated wrongly.
    """
    if value.shape != parameter.shape:  # the step count
        return value.to(parameter.device)
    return torch.empty_like(parameter).copy_(value)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix.` before their names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The inverse of `prefixed`: the tensors whose names begin with `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
