"""What a bottleneck needs to be a layer of anybody's network: one type inside, and a way to stand still."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from smalti import processes


class Layer(nn.Module):
    """A module that computes in float32 inside of networks of any type, and that can be frozen.

    `.half()`, `.bfloat16()` and `.double()` leave its numbers in float32: codes are the same in networks of all types,
    and averages that move by a hundredth a step are not lost to rounding. Only `dtype` changes, the type in which
    latents leave where no features tell it.

    Attributes:
        dtype: what the layer was last converted to.
        frozen: whether nothing in it moves, see `freeze`.
        separate: whether it learns from its own process alone, see `alone`.
    """

    dtype: torch.dtype = torch.float32
    frozen: bool = False
    separate: bool = False
    _unfilled: bool = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device, not to another type."""

        def moved(tensor: Tensor) -> Tensor:
            after = fn(tensor)
            other_type = tensor.is_floating_point() and after.dtype != tensor.dtype
            return tensor.to(after.device) if other_type else after

        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        super()._apply(moved, recurse)
        self._fill()
        return self

    def _constants(self) -> dict[str, Tensor]:
        """Buffers that follow from the options alone, by name: no state holds them."""
        return {}

    def _register_constants(self) -> None:
        for name, value in self._constants().items():
            self.register_buffer(name, value, persistent=False)
        self._unfilled = any(buffer.is_meta for buffer in self.buffers(recurse=False))

    def _fill(self) -> None:
        """Give constants that were made on the meta device their values, once they have memory."""
        constants = self._constants() if self._unfilled else {}
        for name, value in constants.items():
            buffer = self.get_buffer(name)
            if not buffer.is_meta and not value.is_meta:
                buffer.copy_(value)
                self._unfilled = False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Numbers of another type are read as float32, also where they are to be taken over (`assign=True`)."""
        for name in [name for name in state_dict if name.startswith(prefix)]:
            value = state_dict[name]
            if isinstance(value, Tensor) and value.is_floating_point():
                state_dict[name] = value.float()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of every module; without gradients averages, first values and restarts stand still too."""
        freeze_layers(self, not requires_grad)
        return super().requires_grad_(requires_grad)

    def freeze(self) -> Self:
        """Stop everything that moves: code vectors, averages, first values, restarts; the features keep their gradient.

        The same as `requires_grad_(False)`. Of a whole network of yours, `requires_grad_(False)` reaches parameters
        alone, so that averages need this call.
        """
        return self.requires_grad_(False)

    def unfreeze(self) -> Self:
        """The opposite of `freeze`."""
        return self.requires_grad_(True)

    def alone(self) -> Self:
        """Learn from the batches of this process alone, also where `torch.distributed` has several train together.

        By default code vectors, restarts and statistics over a batch are those of all processes, which then must all
        train this layer, step by step.
        """
        for layer in self.modules():
            if isinstance(layer, Layer):
                layer.separate = True
        return self

    @property
    def together(self) -> bool:
        """Whether it learns with those of other processes."""
        return not self.separate and processes.world() > 1

    def batch_mean(self, rows: Tensor) -> Tensor:
        """The mean over the first axis of rows (N, ...): in training over those of all processes, see `alone`."""
        if self.training and torch.is_grad_enabled() and self.together:
            return processes.mean_of_rows(rows)
        return rows.mean(0)

    def no_weight_decay(self) -> set[str]:
        """The names of the parameters that weight decay must leave alone: code vectors, and what makes them.

        The name is that by which timm asks a model.
        """
        layers = ((name, layer) for name, layer in self.named_modules() if name and isinstance(layer, Layer))
        return {f"{name}.{own}" for name, layer in layers for own in layer.no_weight_decay()}


def freeze_layers(module: nn.Module, frozen: bool) -> None:
    """Freeze all `Layer`s in a module, or let them move."""
    for layer in module.modules():
        if isinstance(layer, Layer):
            layer.frozen = frozen
