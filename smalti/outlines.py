"""A model of a stranger: built without memory first, and held against the header of its weights."""

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module
from torch.overrides import TorchFunctionMode

from smalti.configs import CannotBuild
from smalti.errors import LONGEST, SmaltiError, cut, shown
from smalti.files import CONFIG, WEIGHTS, TensorHeader, read_headers

T = TypeVar("T", bound=nn.Module)
MOST_UNSAVED = 1 << 27  # numbers that a model may make besides its weights
FLOATS = ("F32", "F16", "BF16", "F64")
FILLS = {  # what writes values into a tensor, and nothing else
    *("copy_", "fill_", "zero_", "normal_", "uniform_", "zeros_", "ones_", "constant_", "trunc_normal_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"),
}
ARITHMETIC = {"add", "sub", "mul", "div", "truediv"}
TYPES = {  # of weights in a file, by what the model has; the first is its own
    torch.float32: FLOATS,
    torch.float64: ("F64", "F32"),
    torch.float16: ("F16",),
    torch.bfloat16: ("BF16",),
    torch.int64: ("I64",),
    torch.int32: ("I32",),
    torch.int16: ("I16",),
    torch.int8: ("I8",),
    torch.uint8: ("U8",),
    torch.uint16: ("U16",),
    torch.uint32: ("U32",),
    torch.uint64: ("U64",),
    torch.bool: ("BOOL",),
    torch.complex64: ("C64",),
}


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Put the name of a file before the text of an error, and keep it short."""
    try:
        yield
    except SmaltiError as error:
        raise type(error)(cut(f"{path}: {error}", LONGEST)) from error


def built(model_class: type[T], config: Any, folder: Path) -> T:
    """The model of a config, after its outline was compared with the header of its weights.

    A part of the user's that cannot be built on the meta device is built at once, and compared then.
    """
    try:
        outlined(model_class, config, folder)
    except CannotBuild:
        return outlined(model_class, config, folder, device="cpu")
    with about(folder / CONFIG):
        return model_class(config)


def outlined(model_class: type[T], config: Any, folder: Path, device: str = "meta") -> T:
    """The model of a config without values, after names, shapes and types were compared with the header of its weights.

    Raises:
        SmaltiError: the weights are another model's, or the config describes a far larger one.
        CannotBuild: a part of the user's does not build on the meta device.
    """
    headers = read_headers(folder / WEIGHTS)
    with about(folder / CONFIG), _bounded(headers), torch.device(device), Valueless():
        model = model_class(config)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: header.shape for key, header in headers.items()}
    files = f"{folder / WEIGHTS} does not belong to {folder / CONFIG}"
    if wanted != found:
        key = next(key for key in [*wanted, *found] if wanted.get(key) != found.get(key))
        shapes = f"{shown(key)} has shape {shown(found.get(key, 'none'))} instead of {shown(wanted.get(key, 'none'))}"
        raise SmaltiError(cut(f"{files}: {shapes}; take both files from one training", LONGEST))
    for key, value in model.state_dict().items():
        allowed = TYPES.get(value.dtype, ())
        if headers[key].dtype not in allowed:
            types = f"{shown(key)} is of type {headers[key].dtype} instead of {allowed[0] if allowed else value.dtype}"
            raise SmaltiError(cut(f"{files}: {types}; take both files from one training", LONGEST))
    return model


class Valueless(TorchFunctionMode):
    """Nothing is computed for tensors without values: PyTorch would import its compiler for their random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        options = kwargs or {}
        name, first = getattr(func, "__name__", ""), args[0] if args else options.get("tensor")
        if isinstance(first, torch.Tensor) and first.is_meta:
            if name in FILLS or (name == "to" and args[1:3] == (None, None)):  # another order in memory
                return first
            if name.strip("_r") in ARITHMETIC and first.is_floating_point() and len(args) == 2:
                shape = np.broadcast_shapes(first.shape, getattr(args[1], "shape", ()))
                return first if shape == first.shape else torch.empty(shape, dtype=first.dtype, device=first.device)
        if func in (torch.rand, torch.randn) and options.keys() <= {"dtype", "device"}:
            made = torch.empty(*args, **options)
            return made if made.is_meta else func(*args, **options)
        return func(*args, **options)


@contextlib.contextmanager
def _bounded(headers: Mapping[str, TensorHeader]) -> Iterator[None]:
    """Let a constructor make about as many parts and numbers as the header of its weights names, and no more."""
    thread, most_tensors, most_parts = threading.get_ident(), 2 * len(headers) + 64, 16 * len(headers) + 512
    numbers = sum(math.prod(header.shape) for header in headers.values())
    made = {"tensors": 0, "parts": 0, "numbers": 0}

    def count_tensor(_: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        if threading.get_ident() != thread or tensor is None:
            return
        made["tensors"] += 1
        made["numbers"] += tensor.numel()
        if made["tensors"] > most_tensors or made["numbers"] > 2 * numbers + MOST_UNSAVED:
            raise SmaltiError(f"the model would be larger than {WEIGHTS} beside it; take both from one training")

    def count_part(_: nn.Module, name: str, part: nn.Module | None) -> None:
        made["parts"] += threading.get_ident() == thread
        if made["parts"] > most_parts:
            raise SmaltiError(f"the model would have more parts than {WEIGHTS} beside it; take both from one training")

    hooks = [
        module.register_module_parameter_registration_hook(count_tensor),
        module.register_module_buffer_registration_hook(count_tensor),
        module.register_module_module_registration_hook(count_part),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_values(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Warn of weights that are converted, and refuse numbers that are none; a buffer that begins with some may."""
    converted: list[str] = []
    for name, own in model.state_dict().items():
        value = tensors[name]
        if not own.is_floating_point():
            continue
        if value.dtype != own.dtype:
            types = f"{value.dtype} instead of {own.dtype}".replace("torch.", "")
            converted.append(f"{shown(name)} is of type {types}")
        if not _all_finite(value.to(own.dtype)) and _all_finite(own):
            what = f"{path}: {shown(name)} holds NaN or infinity; copy or train it again"
            raise SmaltiError(cut(what, LONGEST))
    if converted:
        rest = f", and {len(converted) - 1} more like it: they were" if len(converted) > 1 else " and was"
        warnings.warn(f"{path}: {converted[0]}{rest} converted", stacklevel=3)


def _all_finite(values: torch.Tensor) -> bool:
    return not values.numel() or bool(torch.stack(torch.aminmax(values)).isfinite().all())
