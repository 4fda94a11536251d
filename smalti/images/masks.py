"""Inpainting masks: which part of an image is kept when the rest is sampled."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smalti.configs import nearest
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Reading, Size, sides
from smalti.images.reading import read_pixels

HALVES = {"left-half": (1, False), "right-half": (1, True), "top-half": (0, False), "bottom-half": (0, True)}
NAMES = (*HALVES, "box", "frame")


def named_mask(name: str, size: Size) -> Tensor:
    """A mask (H, W) bool of a size, True where the image is kept.

    "left-half", "right-half", "top-half", "bottom-half" keep that half; "box" keeps the middle, "frame" what surrounds
    it; another name is a SmaltiError.
    """
    height, width = sides(size)
    mask = torch.zeros(height, width, dtype=torch.bool)
    if name in HALVES:
        axis, second = HALVES[name]
        length, half = mask.shape[axis], mask.shape[axis] // 2
        mask.narrow(axis, half if second else 0, length - half if second else half)[:] = True
        return mask
    if name not in NAMES:
        raise SmaltiError(f"unknown mask {name!r}; {nearest(name, NAMES)}, or give a PNG (white is kept)")
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return mask if name == "box" else ~mask


def read_mask(name: str, size: Size) -> Tensor:
    """A mask by name, or from an image file: white is kept, black is inpainted.

    Raises:
        SmaltiError: no such name or file, or an image of another size.
    """
    if not Path(name).suffix:
        return named_mask(name, size)
    mask = torch.from_numpy(read_pixels(Path(name), Reading(1))[:, :, 0].copy()) >= 128
    height, width = sides(size)
    if tuple(mask.shape) != (height, width):
        found = f"{mask.shape[1]}x{mask.shape[0]}"
        raise SmaltiError(f"{name}: the mask is {found}; this prior makes {width}x{height}: make it that size")
    return mask


def to_grid(mask: Tensor, grid: tuple[int, int], beside: int = 1) -> Tensor:
    """The mask of the code grid (h, w): a code is kept where all of its pixels are.

    Args:
        mask: (H, W) bool.
        grid: of the codes.
        beside: how many codes of the same pixels stand side by side in the grid.

    Raises:
        SmaltiError: a mask whose size is not a multiple of the grid, or that keeps no whole code.
    """
    (height, width), rows, columns = mask.shape, grid[0], grid[1] // beside
    if height % rows or width % columns:
        raise SmaltiError(f"a mask of {width}x{height} does not fit a grid of {columns}x{rows} codes")
    kept = mask.view(rows, height // rows, columns, width // columns).all(dim=3).all(dim=1)
    if mask.any() and not kept.any():
        size = f"{width // columns}x{height // rows} pixels"
        raise SmaltiError(f"the mask keeps no whole code: each is {size}; keep more")
    return kept.repeat_interleave(beside, dim=1)


def grey_out(image: Tensor, mask: Tensor) -> Tensor:
    """The image (C, H, W) with a grey checkerboard where it is masked out."""
    height, width = mask.shape
    pattern = torch.from_numpy(np.indices((height, width)).sum(0) // 2 % 2) * 0.1 + 0.8
    return torch.where(mask, image, pattern.to(image.dtype))
