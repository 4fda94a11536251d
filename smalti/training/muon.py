"""Muon: momentum with orthogonalised updates of matrices."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Muon [1] for the weights of hidden convolutions and linear layers, in float32.

    A weight (out, ...) is reshaped to a matrix (out, rest). torch.optim.Muon takes matrices only and works in bfloat16,
    which is slow on many CPUs.

    Args:
        params: of two or more axes, or groups of them.
        lr: the update's singular values, times sqrt(out / rest) where that is more than 1.
        momentum: of Nesterov's averaged gradient.

    References:
        [1] Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024.
            kellerjordan.github.io/posts/muon
    """

    def __init__(self, params: Iterable[Tensor] | list[dict[str, Any]], lr: float = 0.02, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalised(parameter.grad.lerp(average, group["momentum"]).flatten(1))
                length = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.sub_(update.reshape(parameter.shape), alpha=group["lr"] * length)


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors and singular values between about 0.7 and 1.2; 0 stays 0.

    Five steps of a Newton-Schulz iteration of the fifth degree, [1] above.
    """
    linear, cubic, quintic = COEFFICIENTS
    wide = matrix / (torch.linalg.matrix_norm(matrix) + 1e-7)
    wide = wide.T if matrix.shape[0] > matrix.shape[1] else wide
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = linear * wide + (cubic * gram + quintic * gram @ gram) @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def hidden_kernels(model: nn.Module) -> list[Tensor]:
    """The parameters for Muon: weights of convolutions and linear layers, without a model's `head`."""
    layers = (module for name, module in model.named_modules() if name.rpartition(".")[2] != "head")
    return [layer.weight for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.requires_grad]
