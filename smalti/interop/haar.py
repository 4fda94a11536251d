"""The Haar patches of Cosmos as a matrix, which its neighbouring convolutions take in."""

import torch
import torch.nn.functional as F
from torch import Tensor


def transform(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 4C, H/2, W/2): means of 2x2 pixels, and their differences downwards, across, and both."""
    left, right = images[..., 0::2], images[..., 1::2]
    bands = [
        half[..., 0::2, :] + sign * half[..., 1::2, :] for half in (left + right, left - right) for sign in (1, -1)
    ]
    return torch.cat(bands, dim=1) / 4


def matrix(channels: int, patch: int) -> Tensor:
    """The coefficients (columns) of pixels (rows) in the order of `PixelUnshuffle`, float64."""
    size = channels * patch**2
    coefficients = F.pixel_shuffle(torch.eye(size, dtype=torch.float64)[:, :, None, None], patch)
    for _ in range(patch.bit_length() - 1):
        coefficients = transform(coefficients)
    return coefficients.flatten(1)


def of_pixels(kernel: Tensor, channels: int, patch: int) -> Tensor:
    """A kernel (out, C * patch^2, k, k) on coefficients as one on unfolded pixels."""
    return torch.einsum("nk,okhw->onhw", matrix(channels, patch), kernel.double()).float()


def to_pixels(weight: Tensor, channels: int, patch: int) -> Tensor:
    """A kernel or bias (C * patch^2, ...) that gives coefficients as one that gives unfolded pixels."""
    inverse = torch.linalg.inv(matrix(channels, patch))
    return torch.einsum("kn,k...->n...", inverse, weight.double()).float()
