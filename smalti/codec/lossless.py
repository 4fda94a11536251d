"""The residual that restores every pixel: what the model's prediction leaves, under the adaptive context model.

The prediction is the model's mean image in 256 levels. As with a prior's logits, a machine that decodes finds means
that differ a little; so the rounding of a few hundred values at a time is shifted until none lies near a boundary (see
`frequencies`).
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smalti.codec.adaptive import decode_adaptive, encode_adaptive
from smalti.codec.frequencies import MOST_SHIFTS, SHIFTS, clear_shift, shift_of
from smalti.codec.streams import StreamReader, StreamWriter
from smalti.errors import SmaltiError

BLOCK = 256  # values that share a shift
NOISE = 0.004  # levels of 256 by which a mean may differ between the machines
RICE = 3
LEVELS = 256


def predict(image: Tensor) -> tuple[NDArray[np.int64], list[int]]:
    """The levels (C * H * W,) that a mean image (C, H, W) in [0, 1] predicts, and the number of every block's shift.

    Raises:
        SmaltiError: no shift is clear of all values, which no image that is not made for it will do.
    """
    means = _means(image)
    numbers = []
    for start in range(0, len(means), BLOCK):
        part = means[start : start + BLOCK]
        number = clear_shift(part, np.full(len(part), NOISE))
        if number is None:
            raise SmaltiError("this image cannot be coded without loss; leave --lossless out")
        numbers.append(number)
    return _rounded(means, numbers), numbers


def _means(image: Tensor) -> NDArray[np.float64]:
    return image.double().clamp(0, 1).mul(LEVELS - 1).cpu().numpy().reshape(-1)


def _rounded(means: NDArray[np.float64], numbers: list[int]) -> NDArray[np.int64]:
    shifts = shift_of(np.array(numbers)).repeat(BLOCK)[: len(means)]
    return np.floor(means + shifts / SHIFTS).astype(np.int64).clip(0, LEVELS - 1)


def pack_residuals(pixels: list[NDArray[np.uint8]], means: list[Tensor]) -> tuple[bytes, bytes]:
    """The streams of shifts and of residuals of images (H, W, C), given their mean images (C, H, W)."""
    writer, residuals, shapes = StreamWriter(), [], []
    for image, mean in zip(pixels, means, strict=True):
        levels, numbers = predict(mean)
        for number in numbers:
            writer.rice(number, RICE)
        shapes.append(tuple(mean.shape))
        residuals.append(_folded(image.transpose(2, 0, 1).reshape(-1).astype(np.int64) - levels))
    return writer.finish(), encode_adaptive(np.concatenate(residuals), shapes, LEVELS)


def unpack_residuals(shifts: bytes, residuals: bytes, means: list[Tensor]) -> list[NDArray[np.uint8]]:
    """The images (H, W, C) whose streams `pack_residuals` made."""
    reader, shapes = StreamReader(shifts), [tuple(mean.shape) for mean in means]
    found, place, result = decode_adaptive(residuals, shapes, LEVELS), 0, []
    for mean, shape in zip(means, shapes, strict=True):
        count = int(np.prod(shape))
        numbers = [reader.rice(RICE, MOST_SHIFTS) for _ in range(-(-count // BLOCK))]
        levels = (_rounded(_means(mean), numbers) + _unfolded(found[place : place + count])) % LEVELS
        place += count
        result.append(np.ascontiguousarray(levels.astype(np.uint8).reshape(shape).transpose(1, 2, 0)))
    return result


def _folded(residual: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, -1, 1, -2, 2, ... modulo 256 as 0, 1, 2, 3, 4, ..."""
    wrapped = (residual + LEVELS // 2) % LEVELS - LEVELS // 2
    return np.where(wrapped < 0, -2 * wrapped - 1, 2 * wrapped)


def _unfolded(folded: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(folded % 2, -(folded + 1) // 2, folded // 2)
