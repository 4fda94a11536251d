"""Muon: momentum with orthogonalised updates of matrices."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Muon [1] for the weights of hidden convolutions and linear layers.

    A weight (out, ...) is reshaped to a matrix (out, rest); matrices of one shape are orthogonalised together.
    torch.optim.Muon takes parameters of two axes only, and always works in bfloat16, which is slow on processors
    without bf16 arithmetic; on one that has it both take the same time.

    Args:
        params: of two or more axes, or groups of them.
        lr: the update's singular values, times sqrt(out / rest) where that is more than 1.
        momentum: of Nesterov's averaged gradient.
        dtype: in which updates are orthogonalised; the momentum and the weights stay as they are.

    References:
        [1] Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024.
            kellerjordan.github.io/posts/muon
    """

    def __init__(
        self,
        params: Iterable[Tensor] | list[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for (rows, columns), parameters in alike.items():
                updates = torch.stack([self._averaged(each, group["momentum"]).flatten(1) for each in parameters])
                length = max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, orthogonalised(updates, self.dtype), strict=True):
                    parameter.sub_(update.reshape(parameter.shape), alpha=group["lr"] * length)

    def _averaged(self, parameter: Tensor, momentum: float) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return parameter.grad.lerp(state["momentum"].lerp_(parameter.grad, 1 - momentum), momentum)


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrices (N, rows, columns) with the same singular vectors and singular values between about 0.7 and 1.2.

    Five steps of a Newton-Schulz iteration of the fifth degree, [1] above, computed in `dtype`; 0 stays 0.
    """
    linear, cubic, quintic = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    wide = (matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)).to(dtype)
    wide = wide.mT if tall else wide
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        weights = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        wide = torch.baddbmm(wide, weights, wide, beta=linear)
    return (wide.mT if tall else wide).to(matrices.dtype)


def hidden_kernels(model: nn.Module) -> list[Tensor]:
    """The parameters for Muon: weights of convolutions and linear layers, without a model's `head`."""
    layers = (module for name, module in model.named_modules() if name.rpartition(".")[2] != "head")
    return [layer.weight for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.requires_grad]
