"""A linear layer that is applied many times to a few rows: its weights are laid out for that once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def prepared_linear(weight: Tensor, bias: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """The function rows (`rows`, in) -> (`rows`, out) float32, equal to `F.linear` within rounding.

    For several rows on a CPU oneDNN packs the weights into its own blocks, so that no product copies them again. For
    one row the matrix is kept the way round in which its product is a sum of long rows.

    Args:
        weight: (out, in).
        bias: (out,).
        rows: in the inputs to come; others work too, slower.
    """
    weight, bias = weight.detach(), bias.detach()
    if _can_pack(weight) and rows > 1:
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
            return lambda features: torch.ops.mkldnn._linear_pointwise(features, packed, bias, "none", [], "")
        except (AttributeError, RuntimeError):  # a build of torch without these operators
            pass
    if weight.shape[0] >= weight.shape[1]:
        transposed = weight.T.contiguous()
        return lambda features: torch.addmm(bias, features, transposed)
    return lambda features: F.linear(features, weight, bias)


def _can_pack(weight: Tensor) -> bool:
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return plain and torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
