"""A linear layer that is applied many times to a few rows: its weights are laid out for that once."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.ops.native import Packed, kernels_for


def prepared_linear(layer: nn.Linear | nn.Conv2d, *, gelu: bool = False) -> Callable[[Tensor], Tensor]:
    """The function rows (B, in) -> (B, out) of a linear layer or a 1x1 convolution with a bias, for inference.

    With `gelu` the result goes through GELU (its tanh form).

    The native kernel packs the matrix, reads it once for all rows, and asks for its next part as it works on this one:
    with few rows, reading is what takes the time. A row's result does not depend on the other rows.
    """
    assert layer.bias is not None
    weight, bias = layer.weight.detach().flatten(1), layer.bias.detach()
    native = kernels_for(weight, bias)
    if native is None:
        finish = partial(F.gelu, approximate="tanh") if gelu else lambda result: result
        return lambda features: finish(F.linear(features, weight, bias))
    packed = Packed(native, weight, bias)

    def apply(features: Tensor) -> Tensor:
        features = features.contiguous()
        out = features.new_empty(len(features), packed.columns)
        native.linear(features, packed.panels, packed.bias, out, len(features), packed.depth, packed.columns, gelu)
        return out

    return apply
