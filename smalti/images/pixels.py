"""The only module that converts ranges and colours: uint8 HWC on disk <-> float [0, 1] NCHW in models, grey <-> RGB.

Grey becomes colour by repetition. Colour becomes grey by the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B: for
uint8 rounded as Pillow's mode "L" does, (19595 R + 38470 G + 7471 B + 2^15) >> 16; for floats as it is.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.images.preprocessing import Preprocessing, Size, sides
from smalti.ops import randomness
from smalti.shapes import check_shape

LUMA = (0.299, 0.587, 0.114)


def to_float(pixels: Tensor) -> Tensor:
    """Turn uint8 (B, H, W, C) into float32 [0, 1] (B, C, H, W), stored channels-last."""
    check_shape(pixels, "B H W C", "pixels")
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Turn float [0, 1] (B, C, H, W) into uint8 (B, H, W, C): clamped, rounded to the nearest level."""
    check_shape(images, "B C H W", "images")
    return images.detach().float().clamp(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape (...) as (B, ...); a single one is not copied."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))


def recolour_pixels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Give (..., H, W, C) of any type 1 or 3 channels, where it has the other number."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return pixels.repeat(3, axis=-1)
    if pixels.dtype != np.uint8:
        grey = (pixels * np.array(LUMA)).sum(-1, keepdims=True)
        return (grey if pixels.dtype.kind == "f" else np.rint(grey)).astype(pixels.dtype)
    *axes, width, _ = pixels.shape
    rows = Image.fromarray(np.ascontiguousarray(pixels).reshape(-1, width, 3))
    return np.array(rows.convert("L")).reshape(*axes, width, 1)


def recolour_images(images: Tensor, channels: int) -> Tensor:
    """Give float (..., C, H, W) 1 or 3 channels, where it has the other number; the repeated ones share memory."""
    if images.shape[-3] == channels:
        return images
    if channels == 3:
        return images.expand(*images.shape[:-3], 3, -1, -1)
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(-3, keepdim=True)


def as_colour(images: Tensor) -> Tensor:
    """Float (..., C, H, W) as colour to look at, or for a network of colours: of more bands the first three.

    Grey is repeated, and so is the first of two bands.
    """
    channels = images.shape[-3]
    return recolour_images(images[..., : 1 if channels < 3 else 3, :, :], 3)


def model_images(pixels: Tensor, preprocessing: Preprocessing, generator: torch.Generator | None = None) -> Tensor:
    """Turn uint8 (B, H, W, C) into what a model sees: float32 (B, C, H, W), binarised again each time if so trained.

    The pixels are those of `smalti.data.batches.Pixels`, where fixed binarisation has been done.
    """
    images = to_float(pixels)
    if preprocessing.binarize != "dynamic":
        return images
    if generator is None:
        return (randomness.uniform(*images.shape, like=images) < images).to(images)
    return torch.bernoulli(images, generator=generator)


def pad_to_multiple(images: Tensor, stride: Size) -> Tensor:
    """Replicate-pad (B, C, H, W) at the right and the bottom until `stride` divides H and W; it may be one of each."""
    (height, width), (rows, columns) = images.shape[-2:], sides(stride)
    right, below = -width % columns, -height % rows
    return F.pad(images, (0, right, 0, below), mode="replicate") if right or below else images


def crop_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo `pad_to_multiple`: the top left (H, W) = `size` of the images."""
    height, width = size
    if height > images.shape[-2] or width > images.shape[-1]:
        found = tuple(images.shape[-2:])
        raise SmaltiError(f"cannot crop images of {found} to {size}: the codes are of a smaller image")
    return images[..., :height, :width]


def shrink(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (B, H, W, C) to (h, w) = `size` with an antialiasing bicubic filter (Pillow's, within one level)."""
    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels
    resized = F.interpolate(pixels.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()
