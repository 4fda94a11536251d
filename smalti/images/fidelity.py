"""How far images are from others, pixel by pixel."""

import torch
from torch import Tensor


def mse(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean squared error in units of the pixel range [0, 1], one per image (B,)."""
    return (images - reconstructions).square().flatten(1).mean(1)


def psnr_db(squared_error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels of mean squared errors on [0, 1]; inf where there is no error."""
    return -10 * torch.log10(squared_error)
