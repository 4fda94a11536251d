"""Values of any type to the 256 levels of a picture: by their type where that says the scale, otherwise as stated.

Unsigned integers of 8 and 16 bits and truth values are scaled by what their type can hold, floats are taken to lie in
[0, 1]. Of other integers the type says nothing about what is black and white, so it has to be stated; and so for
floats outside [0, 1]. No image is scaled by its own values: all of a data set have one scale.
"""

import math
from typing import Any

import numpy as np

from smalti.images.errors import BadImage
from smalti.images.preprocessing import Reading
from smalti.images.remarks import Remarks

WHITE = 255
FEWEST_LEVELS = 32  # an image that keeps fewer, of many more, is remarked on
MANY = 2  # times as many
NEAR_ONE = 2  # up to which a range is suggested in hundredths
LOOKED_AT = 1 << 20  # values at most that are counted for a remark
SCALES: dict[str, tuple[float, float]] = {"bool": (0, 1), "uint8": (0, 255), "uint16": (0, 65535)}
AT_ONCE = 1 << 22  # values that are scaled together, so that memory stays bounded


def scale_of(values: np.ndarray, reading: Reading, name: str) -> tuple[float, float]:
    """What is black and what is white among values (..., H, W, C): stated, or known by their type.

    Raises:
        BadImage: not a type of real numbers; not finite; or a type that does not say it.
    """
    kind, (low, high) = values.dtype, check_values(values, name)
    if reading.value_range is not None:
        return reading.value_range
    if kind.name in SCALES:
        return SCALES[kind.name]
    if kind.kind == "f" and low >= 0 and high <= 1:
        return 0, 1
    found = f"{kind.name} values from {low:.8g} to {high:.8g}"
    shown = f"--value_range={suggested(float(low), float(high))}"
    raise BadImage(f"{name}: {found}: train with --value_range LOW:HIGH, what is black and what is white, as {shown}")


def check_values(values: np.ndarray, name: str) -> tuple[Any, Any]:
    """The lowest and the highest of values (..., H, W, C).

    Raises:
        BadImage: not a type of real numbers, none at all, or not finite.
    """
    if values.dtype.kind not in "buif":
        raise BadImage(f"{name}: values of type {values.dtype}; images have integers or floats")
    if not values.size:
        raise BadImage(f"{name}: an image of {values.shape[-2]}x{values.shape[-3]} pixels; give one with pixels")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN is the smallest and the largest, where there is one
        raise BadImage(f"{name}: a value is NaN or infinite; give every pixel a finite value")
    return low, high


def suggested(low: float, high: float) -> str:
    """A range around values, as text: of counts from 0 to the next 2^n - 1, of others whole numbers, or hundredths."""
    if low >= 0 and high > 1 and high == int(high):
        return f"0:{2 ** math.ceil(math.log2(high + 1)) - 1}"
    if -NEAR_ONE <= low < high <= NEAR_ONE:
        return f"{math.floor(100 * low) / 100:g}:{math.ceil(100 * high) / 100:g}"
    return f"{math.floor(low)}:{max(math.ceil(high), math.floor(low) + 1)}"


def to_levels(values: np.ndarray, reading: Reading, name: str) -> np.ndarray:
    """Values (H, W, C) of any real type as uint8: scaled linearly, rounded, clipped.

    What is outside a stated range, and an image that keeps few of its levels, are remarked on.

    Raises:
        BadImage: see `scale_of`.
    """
    if values.dtype == np.uint8 and values.size and reading.value_range in (None, (0, WHITE)):
        return values
    low, high = scale_of(values, reading, name)
    remarks = Remarks() if reading.remarks is None else reading.remarks
    outside = _outside(values, low, high)
    if outside:
        share = f"{outside / values.size:.2g}".rstrip("0").rstrip(".") if outside < values.size else "all"
        text = f"{name}: {outside:,} of {values.size:,} values ({share}) lie outside {low:g}:{high:g} and were clipped"
        remarks.add("have values outside the value range, which were clipped", text)
    levels = _scaled(values, low, high)
    _remark_on_few(values, levels, (low, high), name, remarks)
    if reading.remarks is None:
        remarks.say()
    return levels


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The nearest levels; of small types from a table, of others, or of few values, a part at a time."""
    if values.dtype.kind in "bu" and 2 ** (8 * values.dtype.itemsize) <= values.size:
        every = np.arange(2 ** (8 * values.dtype.itemsize), dtype=np.float64)
        return _nearest(every, low, high)[values.view(np.uint8) if values.dtype == np.bool_ else values]
    flat, levels = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, len(flat), AT_ONCE):
        levels[start : start + AT_ONCE] = _nearest(flat[start : start + AT_ONCE].astype(np.float64), low, high)
    return levels.reshape(values.shape)


def _nearest(values: np.ndarray, low: float, high: float) -> np.ndarray:
    shares = (np.clip(values, low, high) - low) / (high - low)
    return np.rint(shares * WHITE).astype(np.uint8)


def _outside(values: np.ndarray, low: float, high: float) -> int:
    """How many values are below `low` or above `high`."""
    if values.min() >= low and values.max() <= high:
        return 0
    flat = values.reshape(-1)
    parts = (flat[start : start + AT_ONCE] for start in range(0, len(flat), AT_ONCE))
    return sum(int(np.count_nonzero((part < low) | (part > high))) for part in parts)


def _remark_on_few(
    values: np.ndarray, levels: np.ndarray, scale: tuple[float, float], name: str, remarks: Remarks
) -> None:
    """Remark on an image that keeps few levels of many more values; of a large one a part is counted."""
    step = max(1, values.size // LOOKED_AT)
    kept = np.count_nonzero(np.bincount(levels.reshape(-1)[::step]))
    if kept >= FEWEST_LEVELS:
        return
    had = len(np.unique(values.reshape(-1)[::step]))
    if had <= MANY * kept:
        return
    low, high = float(values.min()), float(values.max())
    found = f"{had:,} values, from {low:.6g} to {high:.6g} of {scale[0]:g}:{scale[1]:g}"
    remedy = f"if that is too dark or flat, give --value_range={suggested(low, high)}"
    remarks.add("keep few of their levels", f"{name}: keeps {kept} levels of its {found}; {remedy}")
