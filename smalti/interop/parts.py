"""What an `Autoencoder` is made of, as the readers of foreign weights give it."""

from collections.abc import Mapping
from typing import NamedTuple

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
