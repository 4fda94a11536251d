"""A model that is cut into one part for each process (FSDP2), and its optimiser and averaged weights with it.

For priors that one device does not hold with their optimiser. What is saved and measured is the whole model, which the
first process gathers when something is due; checkpoints are in parts, see `smalti.training.parts`.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smalti import processes
from smalti.errors import SmaltiError
from smalti.pretrained import Pretrained
from smalti.training import parts
from smalti.training.experiment import OptimizerConfig
from smalti.training.state import Checkpoint, TrainState, load_moments, prefixed, under


def cut(module: nn.Module, device: torch.device) -> None:
    """Cut a module in place: the members of its lists, its blocks, one by one, and the rest together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.world(),))
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()
    for part in [*module.modules()]:
        for block in part if isinstance(part, nn.ModuleList) else ():
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


class ShardedState(TrainState):
    """As `TrainState`, of a model whose parameters are in parts.

    Args:
        losses: a module with the model in it, through which its loss is computed; it is cut.
        model: the model.
        config: of the optimiser.
        precision: of Muon.

    Raises:
        SmaltiError: there is one process.
    """

    suffix = ""

    def __init__(
        self, losses: nn.Module, model: Pretrained, config: OptimizerConfig, precision: Literal["fp32", "bf16"] = "fp32"
    ):
        if processes.world() == 1:
            raise SmaltiError("--shard cuts a model into parts for several processes: start them by torchrun")
        self.whole, average = copy.deepcopy(model), copy.deepcopy(model) if config.ema_decay else None
        cut(losses, model.device)
        super().__init__(model, config, precision, average=average)
        if self.average is not None:
            cut(self.average, model.device)

    @property
    def averaged(self) -> Pretrained:
        """The whole model, as it was at the last `gather`; in the first process."""
        return self.whole

    def gather(self) -> None:
        """Bring the whole model up to date, by all processes together."""
        source = self.model if self.average is None else self.average
        whole = self.whole.state_dict()
        for name, value in source.state_dict().items():
            value = _whole(value)
            if processes.is_first():
                whole[name].copy_(value)

    def optimizer_step(self, learning_rate: float) -> Tensor:
        """As of `TrainState`."""
        return _whole(super().optimizer_step(learning_rate))

    def save(self, folder: Path, extra: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write a folder of parts, by all processes together; see `TrainState.save`."""
        self.checkpoint(folder / self.name, extra, record).write()
        self.keep_newest(folder)

    def restore(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Restore a checkpoint, in parts or whole; returns its extra tensors."""
        tensors = checkpoint.tensors or self._read(checkpoint.path)
        models = {"model": self.model} | ({} if self.average is None else {"average": self.average})
        for kind, model in models.items():
            own = model.state_dict()
            model.load_state_dict({name: _like(own[name], value) for name, value in under(tensors, kind).items()})
        moments = under(tensors, "optimizer")
        of_parameter = dict(self.model.named_parameters())
        for key, value in moments.items():
            parameter = of_parameter.get(key.rpartition(".")[0])
            if parameter is not None and parameter.shape == value.shape:
                moments[key] = _like(parameter, value)
        for optimizer in self.optimizers:
            load_moments(self.model, optimizer, moments)
        self.step = checkpoint.step
        return under(tensors, "extra")

    def _read(self, folder: Path) -> dict[str, Tensor]:
        """The tensors of a folder of parts, each process its own."""
        mine = prefixed("model", self.model.state_dict())
        mine |= {} if self.average is None else prefixed("average", self.average.state_dict())
        for name, parameter in self.model.named_parameters():
            mine[f"optimizer.{name}"] = parameter
        empty: dict[str, Tensor] = {}
        for name, (shape, dtype) in parts.shapes_of(folder).items():
            like = mine.get(name, mine.get(name.rpartition(".")[0]))
            fits = like is not None and like.shape == shape
            empty[name] = torch.zeros_like(like) if like is not None and fits else torch.zeros(shape, dtype=dtype)
        return parts.fill(folder, empty, together=True)


def _whole(value: Tensor) -> Tensor:
    """A tensor in parts as one."""
    gathered = getattr(value, "full_tensor", None)
    return value.detach() if gathered is None else gathered().detach()


def _like(own: Tensor, value: Tensor) -> Tensor:
    """A tensor in parts as another is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(own, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
