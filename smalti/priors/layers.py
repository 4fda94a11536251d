"""The layers of causal priors that look at other positions. Features are (B, h, w, C), or (B, T, C) in raster order.

Each computes all positions at once or, given a `Value`, records itself for the steppers. What looks at one position at
a time (linear layers, activations, norms) is plain PyTorch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.priors.plan import Above, Attend, ByImage, ByPosition, Left, Previous, Value, heads_of, merged

Features = Any  # a Tensor or, while a network is recorded, a Value


def check_kernel(kernel: int) -> None:
    """Raise unless a window of this size has a middle and something before it.

    Raises:
        SmaltiError: an even size, or 1.
    """
    if kernel % 2 == 0 or kernel < 3:
        raise SmaltiError(f"kernels must be odd and at least 3, not {kernel}")


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d` of channels-last features (B, h, w, C)."""
    return F.conv2d(features.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution of features (..., C): a linear layer with the weights of a convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, input: Features) -> Features:
        """(..., in_channels) to (..., out_channels)."""
        return F.linear(input, self.weight.flatten(1), self.bias)


class ConvAbove(nn.Conv2d):
    """A convolution over the rows above a position, all columns, and its own row unless `strict`.

    Its own row is complete when all that it is made of lies in the rows above.

    Args:
        in_channels: of the features.
        out_channels: of the result.
        kernel: size of the whole window, odd; only its upper half is kept.
        strict: leave the own row out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, strict: bool):
        check_kernel(kernel)
        self.reach, self.strict = kernel // 2, strict
        super().__init__(in_channels, out_channels, (self.reach + (0 if strict else 1), kernel))

    def forward(self, input: Features) -> Features:
        """(B, h, w, in_channels) to (B, h, w, out_channels)."""
        if isinstance(input, Value):
            return input.plan.note(Above(self.weight, self.bias, not self.strict), (input,), {}, by_row=True)
        rows = F.pad(input, (0, 0, self.reach, self.reach, self.reach, 0))
        return convolve(rows[:, : input.shape[1] + self.kernel_size[0] - 1], self.weight, self.bias)


class ConvLeft(nn.Conv2d):
    """A convolution over the columns left of a position in its row, and the position itself unless `strict`.

    Args:
        in_channels: of the features.
        out_channels: of the result.
        kernel: size of the whole window, odd; only its left half is kept.
        strict: leave the position itself out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, strict: bool):
        check_kernel(kernel)
        self.reach = kernel // 2
        super().__init__(in_channels, out_channels, (1, self.reach + (0 if strict else 1)))

    def forward(self, input: Features) -> Features:
        """(B, h, w, in_channels) to (B, h, w, out_channels)."""
        if isinstance(input, Value):
            return input.plan.note(Left(self.weight[:, :, 0], self.bias, self.reach), (input,), {})
        columns = F.pad(input, (0, 0, self.reach, 0))[:, :, : input.shape[2] + self.kernel_size[1] - 1]
        return convolve(columns, self.weight, self.bias)


class CausalConv2d(nn.Module):
    """A convolution that sees what comes before a position in raster order, and the position itself unless `strict`.

    The rows above within kernel // 2, and in its own row as many columns to the left: the masks A (strict) and B of
    PixelRNN (arXiv:1601.06759).

    Shapes:
        features  (B, h, w, in_channels)
        returns   (B, h, w, out_channels)

    Args:
        in_channels: of the features.
        out_channels: of the result.
        kernel: size of the whole window, odd; only its upper half is kept.
        strict: leave the position itself out.

    Raises:
        SmaltiError: an even kernel, or 1.
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, strict: bool = False):
        super().__init__()
        check_kernel(kernel)
        self.reach = kernel // 2
        self.left_taps = self.reach + (0 if strict else 1)
        self.conv = nn.Conv2d(in_channels, out_channels, (self.reach + 1, kernel))
        mask = torch.ones(self.reach + 1, kernel)
        mask[-1, self.left_taps :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, features: Features) -> Features:
        """All positions at once, or recorded as what lies above and what lies to the left."""
        weight, bias = self.conv.weight, self.conv.bias
        if isinstance(features, Value):
            above = features.plan.note(Above(weight[:, :, :-1], bias, False), (features,), {}, by_row=True)
            left = Left(weight[:, :, -1, : self.left_taps], None, self.reach)
            return features.plan.note(left, (features,), {}) + above
        return convolve(F.pad(features, (0, 0, self.reach, self.reach, self.reach, 0)), weight * self.mask, bias)


def attend(qkv: Features, heads: int, key_width: int, *, causal: bool = True) -> Features:
    """Scaled dot-product attention of every position over itself and, if `causal`, only those before it.

    Shapes:
        qkv      (B, *positions, heads * (2 * key_width + value_width))  queries, keys, values
        returns  (B, *positions, heads * value_width)
    """
    if isinstance(qkv, Value):
        return qkv.plan.note(Attend(heads, key_width), (qkv,), {})
    mixed = F.scaled_dot_product_attention(*heads_of(qkv.flatten(1, -2), heads, key_width), is_causal=causal)
    return merged(mixed).view(*qkv.shape[:-1], -1)


def previous(features: Features, first: Tensor) -> Features:
    """The features (B, T, C) of the position before; at the first position `first` (B, C)."""
    if isinstance(features, Value):
        return features.plan.note(Previous(first), (features,), {})
    return torch.cat([first[:, None], features[:, :-1]], dim=1)


def behind(prefix: Tensor, features: Features) -> Features:
    """Features (B, T, C) behind positions (B, P, C) that are given: (B, P + T, C)."""
    if isinstance(features, Value):
        features.plan.prefix = features, prefix
        return features
    return torch.cat([prefix, features], dim=1)


def last(features: Features, count: int) -> Features:
    """The last `count` positions: those of the codes."""
    return features if isinstance(features, Value) else features[:, -count:]


def by_position(codes: Features, table: Tensor) -> Features:
    """A row of `table` (T, C) for each position of the codes (B, *positions): (B, *positions, C)."""
    if isinstance(codes, Value):
        return codes.plan.note(ByPosition(table), (), {}, by_row=True)
    return table.view(*codes.shape[1:], -1).expand(*codes.shape, -1)


def by_image(like: Features, table: Tensor) -> Features:
    """A vector of `table` (B, C) for each image, at every position of some features (B, *positions, C)."""
    if isinstance(like, Value):
        return like.plan.note(ByImage(table), (), {}, by_row=True)
    return table.view(len(table), *[1] * (like.ndim - 2), -1)


def gate(features: Features) -> Features:
    """Half of the channels through tanh, times the other half through a sigmoid."""
    if isinstance(features, Value):
        return features.plan.note(gate, (features,), {}, features.by_row)
    signal, gates = features.chunk(2, dim=-1)
    return signal.tanh() * gates.sigmoid()


class ChannelDropout(nn.Dropout2d):
    """Dropout of whole channels of features (B, h, w, C)."""

    def forward(self, input: Features) -> Features:
        """The same shape."""
        return input if isinstance(input, Value) else super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
