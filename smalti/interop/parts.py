"""What an `Autoencoder` is made of, as the readers of foreign weights give it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smalti.configs import Spec
from smalti.errors import SmaltiError

Tensors = Mapping[str, Tensor]


class TensorError(SmaltiError):
    """A tensor does not fit the others.

    Attributes:
        name: its name in an `Autoencoder`.
        fault: "is missing", ...
    """

    def __init__(self, name: str, fault: str):
        super().__init__(f"{name} {fault}")
        self.name, self.fault = name, fault


class Parts(NamedTuple):
    """Specs of the parts, and the tensors by the names of `Autoencoder`; those that it makes itself may be missing."""

    networks: Spec
    bottleneck: Spec
    likelihood: Spec
    tensors: dict[str, Tensor]


def codebook_state(vectors: Tensor) -> dict[str, Tensor]:
    """The state of a codebook that holds code vectors (K, D), all of them equally used."""
    state = {
        "table": vectors,
        "share": torch.full((len(vectors),), 1 / len(vectors)),
        "sums": vectors / len(vectors),
        "ready": torch.tensor(True),
    }
    return {f"bottleneck.codebook.{name}": value for name, value in state.items()}


def identity(channels: int) -> Tensor:
    """The kernel of a 1x1 convolution that changes nothing."""
    return torch.eye(channels)[:, :, None, None]


def said(settings: Any, keys: tuple[str, ...]) -> int | None:
    """The whole number that a config has under one of these keys, at any depth; None where it has none."""
    if isinstance(settings, Mapping):
        for key in keys:
            if type(settings.get(key)) is int:
                return settings[key]
    values = settings.values() if isinstance(settings, Mapping) else settings if isinstance(settings, list) else ()
    return next((found for value in values if (found := said(value, keys)) is not None), None)
