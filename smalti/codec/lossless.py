"""What restores every pixel: the pixels themselves under the adaptive context model, given the model's prediction.

The planes are green, red - green and blue - green, modulo 256. The contexts are the neighbours and, as a hint, the
level that the model's mean image predicts. (Coding the difference from the prediction is worse: flat areas and edges
that repeat no longer do.)

As with a prior's logits, a machine that decodes finds means that differ a little; so the rounding of a few hundred
values at a time is shifted until none lies near a boundary (see `frequencies`).
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smalti.codec.adaptive import code_adaptively
from smalti.codec.coders import split
from smalti.codec.frequencies import MOST_SHIFTS, SHIFTS, clear_shift, shift_of
from smalti.codec.streams import Floats, Integers, StreamReader, StreamWriter
from smalti.errors import SmaltiError

BLOCK = 256  # values that share a shift
NOISE = 0.004  # levels of 256 by which a mean may differ between the machines
RICE = 3
LEVELS = 256
HINT = 4  # levels that a hint does not tell apart


def pack_pixels(images: list[NDArray[np.uint8]], means: list[Tensor]) -> list[bytes]:
    """The streams of shifts and of pixels of images (H, W, C), given their mean images (C, H, W) in [0, 1].

    Raises:
        SmaltiError: no shift is clear of all values, which no image that is not made for it will do.
    """
    writer, hints = StreamWriter(), []
    for mean in means:
        values, numbers = _values(mean), []
        for part in np.split(values, range(BLOCK, len(values), BLOCK)):
            number = clear_shift(part, np.full(len(part), NOISE))
            if number is None:
                raise SmaltiError("this image cannot be coded without loss; leave --lossless out")
            writer.rice(number, RICE)
            numbers.append(number)
        hints.append(_hints(mean, numbers))
    planes = [_planes(image.transpose(2, 0, 1).astype(np.int64)) for image in images]
    flat, known = (np.concatenate([plane.reshape(-1) for plane in values]) for values in (planes, hints))
    exact = StreamWriter()
    code_adaptively(exact, flat, [plane.shape for plane in planes], LEVELS, known)
    return [writer.finish(), exact.finish()]


def unpack_pixels(streams: list[bytes], means: list[Tensor]) -> list[NDArray[np.uint8]]:
    """The images (H, W, C) whose streams `pack_pixels` made."""
    (reader, pixels), hints = map(StreamReader, streams), []
    for mean in means:
        numbers = [reader.rice(RICE, MOST_SHIFTS) for _ in range(-(-mean.numel() // BLOCK))]
        hints.append(_hints(mean, numbers))
    shapes = [tuple(mean.shape) for mean in means]
    known = np.concatenate([hint.reshape(-1) for hint in hints])
    flat = np.zeros(len(known), np.int64)
    code_adaptively(pixels, flat, shapes, LEVELS, known)
    return [np.ascontiguousarray(_colours(plane).astype(np.uint8).transpose(1, 2, 0)) for plane in split(flat, shapes)]


def _values(mean: Tensor) -> Floats:
    return mean.double().clamp(0, 1).mul(LEVELS - 1).cpu().numpy().reshape(-1)


def _hints(mean: Tensor, numbers: list[int]) -> Integers:
    """The predicted levels (C, H, W), rounded with the shifts of these numbers, as planes and coarser."""
    values = _values(mean)
    shifts = shift_of(np.array(numbers)).repeat(BLOCK)[: len(values)]
    levels = np.floor(values + shifts / SHIFTS).astype(np.int64).clip(0, LEVELS - 1)
    return _planes(levels.reshape(mean.shape)) // HINT


def _planes(colours: Integers) -> Integers:
    """(C, H, W) with red and blue less green, and green first; grey as it is."""
    if len(colours) == 1:
        return colours
    red, green, blue = colours
    return np.stack([green, (red - green) % LEVELS, (blue - green) % LEVELS])


def _colours(planes: Integers) -> Integers:
    """What `_planes` took apart."""
    if len(planes) == 1:
        return planes
    green, red, blue = planes
    return np.stack([(red + green) % LEVELS, green, (blue + green) % LEVELS])
