"""How far images are from others, pixel by pixel."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Measured = TypeVar("Measured", bound=Tensor | tuple[Tensor, ...] | None)
AT_ONCE = 1 << 22  # values of an image that are measured together


def by_channel(measure: Callable[..., Measured], *images: Tensor) -> Measured:
    """What a measure says of images (B, C, H, W) of one size; of large ones channel by channel, in bounded memory.

    The measure gives (B,), a tuple of those, or None, and is a mean over channels of what it says of each.
    """
    if images[0][0].numel() <= AT_ONCE:
        return measure(*images)
    found = [measure(*channel) for channel in zip(*(each.split(1, dim=1) for each in images), strict=True)]
    if isinstance(found[0], tuple):
        return tuple(torch.stack(parts).mean(0) for parts in zip(*found, strict=True))  # pyright: ignore
    return None if found[0] is None else torch.stack(found).mean(0)  # pyright: ignore


def mse(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean squared error in units of the pixel range [0, 1], one per image (B,)."""
    return (images - reconstructions).square().flatten(1).mean(1)


def psnr_db(squared_error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels of mean squared errors on [0, 1]; inf where there is no error."""
    return -10 * torch.log10(squared_error)
