"""The training state in one checkpoint, written atomically: weights, averaged weights, optimiser, step, log."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.files import read_tensors, write_tensors
from smalti.pretrained import Pretrained
from smalti.training.experiment import OptimizerConfig
from smalti.training.muon import Muon, hidden_kernels

KEPT_CHECKPOINTS = 2
NUMBER_RATE = 5.0  # learning rates of single numbers (log scales) are multiplied by this


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW in three groups: matrices (with weight decay), vectors (without), single numbers (faster); perhaps Muon.

    What a model's `no_weight_decay()` names, such as code vectors, is among the vectors.

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
    return [adam, Muon([{"params": kernels, "rate": config.muon_rate}])] if kernels else [adam]


class TrainState:
    """The model, on its device, its moving average and its optimisers."""

    def __init__(self, model: Pretrained, config: OptimizerConfig):
        self.model, self.config, self.step = model, config, 0
        self.optimizers = make_optimizers(model, config)
        self.average = copy.deepcopy(model) if config.ema_decay else None  # starts equal: no special first step
        self.parameters: list[Tensor] = list(model.parameters())

    @property
    def averaged(self) -> Pretrained:
        """The model to save, evaluate and sample from."""
        return self.model if self.average is None else self.average

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

    def save(self, folder: Path, extra: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Path:
        """Write checkpoints/step-N.safetensors, then delete all but the two newest."""
        tensors = prefixed("model", self.model.state_dict()) | prefixed("extra", extra)
        if self.average is not None:
            tensors |= prefixed("average", self.average.state_dict())
        for optimizer in self.optimizers:
            tensors |= prefixed("optimizer", moments_of(self.model, optimizer))
        unshared = {name: value.clone() for name, value in tensors.items()}
        metadata = {"smalti": "checkpoint", "step": str(self.step), "notes": json.dumps(dict(notes))}
        path = folder / f"step-{self.step:09d}.safetensors"
        write_tensors(path, unshared, metadata)
        for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT_CHECKPOINTS]:
            old.unlink()
        return path

    def restore(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Restore a checkpoint; returns its extra tensors and its notes.

        Raises:
            SmaltiError: the file is damaged, or not a checkpoint of this model.
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("smalti") != "checkpoint":
            raise SmaltiError(f"{path} is not a smalti checkpoint; remove it to go on from an older one")
        part = {kind: under(tensors, kind) for kind in ("model", "average", "optimizer", "extra")}
        try:
            self.model.load_state_dict(part["model"])
            if self.average is not None:
                self.average.load_state_dict(part["average"])
        except RuntimeError as error:
            raise SmaltiError(f"{path} is of another model: {str(error).splitlines()[1].strip()}") from error
        for optimizer in self.optimizers:
            load_moments(self.model, optimizer, part["optimizer"])
        self.step = int(metadata["step"])
        return part["extra"], json.loads(metadata["notes"])


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser state of a model's parameters, named PARAMETER.KEY."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the optimiser state from `moments_of`, for the parameters of this optimiser."""
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


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder."""
    return max(folder.glob("step-*.safetensors"), default=None)
