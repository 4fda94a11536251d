"""Using a module in eval mode without touching it, so that it can be trained on another thread meanwhile."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def evaluating(module: Module) -> Module:
    """The module itself if all of it is in eval mode, or a view of it in eval mode.

    A view is another tree of modules over the same parameters, buffers and hooks: what is loaded into the module, or
    moved, the view has too. Other attributes it has as they were when it was made. Its class and methods are those of
    the module, and attributes that hold other modules' methods call those. What is compiled, for training, is not so in
    a view.
    """
    return _view(module, {}) if any(part.training for part in module.modules()) else module


def _view(module: Module, made: dict[nn.Module, nn.Module]) -> Module:
    if module not in made:
        made[module] = view = object.__new__(type(module))
        view.__dict__.update(module.__dict__, training=False, _compiled_call_impl=None)
        children = module._modules.items()
        view.__dict__["_modules"] = {name: None if child is None else _view(child, made) for name, child in children}
    return made[module]  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def using(module: Module) -> Iterator[Module]:
    """The module in eval mode, see `evaluating`, and no gradients for the block."""
    with torch.no_grad():
        yield evaluating(module)
