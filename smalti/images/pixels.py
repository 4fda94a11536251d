"""The only module that converts pixel ranges: uint8 HWC on disk <-> float [0, 1] NCHW in the models."""

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.shapes import check_shape


def to_float(pixels: Tensor) -> Tensor:
    """Turn uint8 (B, H, W, C) into float32 [0, 1] (B, C, H, W), stored channels-last."""
    check_shape(pixels, "B H W C", "pixels")
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Turn float [0, 1] (B, C, H, W) into uint8 (B, H, W, C): clamped, rounded to the nearest level."""
    check_shape(images, "B C H W", "images")
    return images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def pad_to_multiple(images: Tensor, stride: int) -> Tensor:
    """Replicate-pad (B, C, H, W) at the right and the bottom until `stride` divides H and W."""
    height, width = images.shape[-2:]
    right, below = -width % stride, -height % stride
    return F.pad(images, (0, right, 0, below), mode="replicate") if right or below else images


def crop_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo `pad_to_multiple`: the top left (H, W) = `size` of the images."""
    height, width = size
    if height > images.shape[-2] or width > images.shape[-1]:
        raise SmaltiError(
            f"cannot crop images of {tuple(images.shape[-2:])} to {size}: the codes are of a smaller image"
        )
    return images[..., :height, :width]


def binarize(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample every value of (B, C, H, W) in [0, 1] as a Bernoulli: dynamic binarisation, as of MNIST."""
    return torch.bernoulli(images, generator=generator)


def shrink(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (B, H, W, C) to (h, w) = `size` with an antialiasing bicubic filter (Pillow's, within one level)."""
    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels
    resized = F.interpolate(pixels.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()
