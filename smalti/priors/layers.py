"""The layers of causal priors that look at other positions. Features are (B, h, w, C), or (B, T, C) in raster order.

Each computes all positions at once or, given a `Value`, records itself for the steppers. What looks at one position at
a time (linear layers, activations, norms) is plain PyTorch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.priors.plan import Attend, ByImage, ByPosition, Look, Previous, Value, heads_of, merged

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
        if isinstance(input, Value):
            return input.plan.note(F.linear, (input, self.weight.flatten(1), self.bias), {}, input.by_row)
        return convolve(input, self.weight, self.bias)


class StackConv2d(nn.Conv2d):
    """A convolution of one of the two stacks of a gated PixelCNN: upwards over rows, or over the columns to the left.

    Upwards it sees all columns of the rows above a position and, unless `strict`, of its own row, which must then be
    made of what lies above. To the left it sees its own row before the position and, unless `strict`, the position.

    Args:
        in_channels: of the features (B, h, w, in_channels).
        out_channels: of the result.
        kernel: size of the whole window, odd; the upper or left half of it is kept.
        upwards: over rows.
        strict: leave the own row, or the position itself, out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, upwards: bool, strict: bool):
        check_kernel(kernel)
        self.reach, self.upwards, self.own = kernel // 2, upwards, not (upwards and strict)
        self.taps = self.reach + (0 if strict else 1)
        super().__init__(in_channels, out_channels, (self.taps, kernel) if upwards else (1, self.taps))

    def forward(self, input: Features) -> Features:
        """(B, h, w, in_channels) to (B, h, w, out_channels)."""
        if isinstance(input, Value):
            return input.plan.note(Look(self.weight, self.bias, self.reach, self.own), (input,), {}, self.upwards)
        beside = self.reach if self.upwards else 0
        padded = F.pad(input, (0, 0, self.reach, beside, beside, 0))
        height, width = (size + self.taps - 1 for size in input.shape[1:3])
        return convolve(padded[:, :height] if self.upwards else padded[:, :, :width], self.weight, self.bias)


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
            above = Look(weight[:, :, :-1], bias, self.reach, False)
            left = Look(weight[:, :, -1:, : self.left_taps], None, self.reach, True)
            note = features.plan.note
            return note(left, (features,), {}) + note(above, (features,), {}, by_row=True)
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
    return table.view(table.shape[0], *[1] * (like.ndim - 2), -1)


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
