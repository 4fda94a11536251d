"""Convolutions of channels-last images, forward and backward, at nearly the rate of a matrix product.

A ReLU before a convolution costs nothing here: it is taken while the input is read, and its gradient while that of the
input is written. `Conv2d` and `ConvTranspose2d` are PyTorch's where the native kernels do not apply (another device,
another type, autocast, groups, dilation, `torch.compile`), and on processors where they were not found to be faster.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smalti.errors import SmaltiError
from smalti.ops.native import Kernels, kernels_for

FASTER = {"avx2"}  # than PyTorch's: with AVX-512, which PyTorch's are made for, and elsewhere it was not measured
SHARES = 8  # of the pixels, at most, whose weights' gradients are made apart and then added up
PIXELS_IN_SHARE = 512  # at least


def convolution(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    transposed: bool = False,
    rectified: bool = False,
) -> Tensor:
    """`F.conv2d` or, transposed, `F.conv_transpose2d`, of the images or of their ReLU.

    An image's result depends neither on its batch nor on the threads; nor does the weight's gradient on the latter.
    Gradients reach images, weight and bias, once.

    Shapes:
        images  (B, C, H, W)    float32
        weight  (O, C, kh, kw)  float32; transposed (C, O, kh, kw)
        bias    (O,)            float32
        result  (B, O, H', W')  channels-last

    Args:
        images: any memory format; channels-last ones are not copied.
        weight: as in PyTorch.
        bias: as in PyTorch.
        stride: in both directions.
        padding: zeros on all four sides.
        transposed: the other way round: what the gradient in the input of a convolution with this weight is.
        rectified: whether the ReLU of the images is taken first.

    Raises:
        SmaltiError: shapes that do not fit each other.
    """
    native = kernels_for(images, weight, bias)
    if native is None:
        images = F.relu(images) if rectified else images
        return (F.conv_transpose2d if transposed else F.conv2d)(images, weight, bias, stride, padding)
    inputs, outputs = weight.shape[:2] if transposed else weight.shape[1::-1]
    if images.ndim != 4 or weight.ndim != 4 or images.shape[1] != inputs or bias.shape != (outputs,):
        given = f"images {tuple(images.shape)}, weight {tuple(weight.shape)} and bias {tuple(bias.shape)}"
        raise SmaltiError(f"{given} do not fit: the channels of all three must, and images and weight have four sides")
    found = _Convolution.apply(native, images, weight, bias, stride, padding, transposed, rectified)
    assert isinstance(found, Tensor)
    return found


class _Convolution(torch.autograd.Function):
    """A convolution's gradient in its input is the transposed convolution with its weight, and the other way round."""

    @staticmethod
    def forward(ctx, native, images, weight, bias, stride, padding, transposed, rectified):
        """See `convolution`."""
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(images, weight)
        ctx.options = native, stride, padding, transposed, rectified
        sides = zip(images.shape[2:], weight.shape[2:], strict=True)
        if transposed:
            size = [(length - 1) * stride - 2 * padding + kernel for length, kernel in sides]
        else:
            size = [(length + 2 * padding - kernel) // stride + 1 for length, kernel in sides]
        if min(size) < 1:
            raise SmaltiError(
                f"images of {tuple(images.shape[2:])} are too small for a kernel of {tuple(weight.shape[2:])} and a "
                f"padding of {padding}"
            )
        return _convolve(native, images, weight, bias, stride, padding, transposed, size, rectified=rectified)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of the images, the weight and the bias."""
        images, weight = ctx.saved_tensors
        native, stride, padding, transposed, rectified = ctx.options
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            gate = images if rectified else None
            of_images = _convolve(
                native, gradient, weight, None, stride, padding, not transposed, images.shape[2:], gate=gate
            )
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            pair = (gradient, images) if transposed else (images, gradient)
            of_weight, of_bias = _weights(native, *pair, weight, stride, padding, transposed, rectified)
            of_bias = gradient.sum((0, 2, 3)) if transposed else of_bias
        return None, of_images, of_weight, of_bias, None, None, None, None


def _numbers(
    images: Tensor,
    weight: Tensor,
    taps: Sequence[range],
    out: Tensor,
    *,
    gate: Tensor | None = None,
    rectified: bool = False,
    step: int = 1,
    before: Sequence[int] = (0, 0),
) -> list[int]:
    """`convolution` in kernels/convolution.h.

    Args:
        images: (B, C, H, W), channels-last.
        weight: (O, C, kh, kw), in any order.
        taps: those of its rows and columns that are the window, in the order of the input.
        out: (B, O, H', W'), channels next to each other.
        gate: laid out as `out`: where it is not above 0 the result is 0.
        rectified: whether the images' ReLU is taken.
        step: how far the window moves.
        before: how far it starts above and left of the input.
    """
    batch, channels, height, width = images.shape
    (_, outputs, rows, columns), (image, _, row, column) = out.shape, out.stride()
    of_output, of_channel, *steps = weight.stride()
    first = sum(part.start * stride for part, stride in zip(taps, steps, strict=True))
    of_row, of_column = (part.step * stride for part, stride in zip(taps, steps, strict=True))
    gate_place = 0 if gate is None else gate.data_ptr()
    return [
        weight.data_ptr() + 4 * first, of_output, of_row, of_column, of_channel,
        out.data_ptr(), gate_place, image, row, column, rows, columns, outputs,
        batch, height, width, channels, rectified, len(taps[0]), len(taps[1]), step, *before,
    ]  # fmt: skip


def _convolve(
    native: Kernels,
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    transposed: bool,
    size: Sequence[int],
    *,
    rectified: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """The convolution of channels-last images, (B, O, *size); with `gate` (B, O, *size) 0 where that is not above 0."""
    weight = weight.transpose(0, 1) if transposed else weight
    out = images.new_empty(len(images), *size, len(weight)).permute(0, 3, 1, 2)
    if not out.numel():
        return out
    high, wide = weight.shape[2:]
    if transposed:
        numbers = []
        for down in phases(high, stride, padding)[: size[0]]:
            for across in phases(wide, stride, padding)[: size[1]]:
                own = slice(None), slice(None), slice(down.first, None, stride), slice(across.first, None, stride)
                taps, before = (down.taps, across.taps), (down.before, across.before)
                own_gate = None if gate is None else gate[own]
                options = {"gate": own_gate, "rectified": rectified, "before": before}
                numbers.append(_numbers(images, weight, taps, out[own], **options))
    else:
        taps, before = (range(high), range(wide)), (padding, padding)
        options = {"gate": gate, "rectified": rectified, "before": before}
        numbers = [_numbers(images, weight, taps, out, step=stride, **options)]
    native.convolve(np.array(numbers, dtype=np.int64), images, 0 if bias is None else bias.contiguous(), len(numbers))
    return out


class Phase(NamedTuple):
    """What some output pixels of a transposed convolution see of the input, in one direction.

    Attributes:
        before: how far the first window starts outside the input.
        first: the first of these output pixels; the others follow at the stride.
        taps: those of the kernel's taps that reach them, in the order of the input.
    """

    before: int
    first: int
    taps: range


def phases(kernel: int, stride: int, padding: int) -> list[Phase]:
    """The parts of a transposed convolution in one direction.

    Output pixel y = stride * q + first gets input pixel i by the tap y + padding - stride * i: those that are
    first + padding modulo the stride, the last of them from the first input pixel. So their order is turned round.
    """
    found = []
    for first in range(stride):
        moved, tap = divmod(first + padding, stride)
        taps = range(tap, kernel, stride)[::-1]
        found.append(Phase(len(taps) - 1 - moved, first, taps))
    return found


def _weights(
    native: Kernels,
    images: Tensor,
    gradient: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of a convolution's weight (O, C, kh, kw) and bias (O,), from its input and its output's gradient.

    For a transposed one its input is the gradient here, and the gradient of its output the input.
    """
    (outputs, channels, high, wide), (batch, _, rows, columns) = weight.shape, gradient.shape
    shares = max(1, min(SHARES, batch * rows * columns // PIXELS_IN_SHARE))
    parts = images.new_empty(shares, -(-outputs // native.panel), high * wide * channels + 1, native.panel)
    found, bias = torch.empty_like(weight), images.new_empty(outputs)
    taps, before, windows_rectified = (range(high), range(wide)), (padding, padding), rectified and not transposed
    numbers = _numbers(images, found, taps, gradient, rectified=windows_rectified, step=stride, before=before)
    numbers = np.array(numbers, dtype=np.int64)
    native.convolve_weights(numbers, images, gradient, parts, bias, shares, rectified and transposed)
    return found, bias


def _is_plain(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether the native kernels do what this layer does."""
    square = len(set(layer.stride)) == len(set(layer.padding)) == 1 and not isinstance(layer.padding, str)
    ordinary = layer.groups == max(layer.dilation) == 1 and not any(layer.output_padding)
    return square and ordinary and layer.padding_mode == "zeros" and layer.bias is not None


def _forward(layer: "Conv2d | ConvTranspose2d", images: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
    weight, bias = layer.weight, layer.bias
    elsewhere = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    native = None if elsewhere or bias is None else kernels_for(images, weight, bias)
    if bias is None or native is None or native.variant not in FASTER or not layer.plain or images.ndim != 4:
        return plain(F.relu(images) if layer.rectified else images)
    options = {"transposed": layer.transposed, "rectified": layer.rectified}
    return convolution(images, weight, bias, stride=layer.stride[0], padding=int(layer.padding[0]), **options)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` of the input or, `rectified`, of its ReLU."""

    def __init__(self, *arguments: Any, rectified: bool = False, **options: Any):
        super().__init__(*arguments, **options)
        self.rectified, self.plain = rectified, _is_plain(self)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H', W')."""
        return _forward(self, input, super().forward)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of the input or, `rectified`, of its ReLU."""

    def __init__(self, *arguments: Any, rectified: bool = False, **options: Any):
        super().__init__(*arguments, **options)
        self.rectified, self.plain = rectified, _is_plain(self)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, in, H, W) to (B, out, H', W')."""
        if output_size is not None:
            return super().forward(F.relu(input) if self.rectified else input, output_size)
        return _forward(self, input, super().forward)
