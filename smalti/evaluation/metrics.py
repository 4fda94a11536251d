"""Pure functions on images; every name says its unit. Errors: `smalti.images.fidelity`; codes: `smalti.ops.counts`."""

import math
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.images import fidelity

SSIM_WINDOW_PX = 11
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales of MS-SSIM, from the finest
STRIP = 1 << 20  # values of a large image that are compared together


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor | None:
    """Structural similarity with an 11-pixel Gaussian window, one per image (B,); Wang et al., 2004.

    None when the package pytorch-msssim is not installed or the images are smaller than the window.
    """
    package = _package(images, SSIM_WINDOW_PX)
    return None if package is None else _similarity(package, images, reconstructions)[0].mean(1)


def ms_ssim(images: Tensor, reconstructions: Tensor) -> Tensor | None:
    """Structural similarity over five scales, one per image (B,); Wang et al., 2003.

    None when the package pytorch-msssim is not installed or the images are too small: 160 pixels and less.
    """
    package = _package(images, (SSIM_WINDOW_PX - 1) * 2**4 + 1)
    if package is None:
        return None
    factors: list[Tensor] = []
    for scale in reversed(range(len(SCALE_WEIGHTS))):
        similarity, contrast = _similarity(package, images, reconstructions)
        factors.append((contrast if scale else similarity).relu())
        odd = [side % 2 for side in images.shape[2:]]
        images, reconstructions = (F.avg_pool2d(each, 2, padding=odd) for each in (images, reconstructions))
    weights = images.new_tensor(SCALE_WEIGHTS).view(-1, 1, 1)
    return torch.prod(torch.stack(factors) ** weights, dim=0).mean(1)


def _package(images: Tensor, least_px: int) -> Any:
    """The package's module; None without it, or where images are smaller."""
    try:
        from pytorch_msssim import ssim as package
    except ImportError:
        return None
    return sys.modules[package.__module__] if min(images.shape[-2:]) >= least_px else None


def _similarity(package: Any, images: Tensor, reconstructions: Tensor) -> tuple[Tensor, Tensor]:
    """Means over all windows of similarity, and of contrast and structure alone: (B, C) each.

    The windows of a large image are taken in strips of rows, so that memory stays bounded.
    """
    rows = images.shape[2] - SSIM_WINDOW_PX + 1  # of windows
    large = images[0].numel() > fidelity.AT_ONCE
    at_once = max(1, STRIP // images[0, :, 0].numel()) if large else rows
    window = package._fspecial_gauss_1d(SSIM_WINDOW_PX, 1.5).repeat(images.shape[1], 1, 1, 1)
    found: list[tuple[Tensor, Tensor]] = []
    for start in range(0, rows, at_once):
        count = min(at_once, rows - start)
        both = (each[:, :, start : start + count + SSIM_WINDOW_PX - 1] for each in (images, reconstructions))
        means = package._ssim(*both, data_range=1.0, win=window, size_average=False)
        found.append(means if count == rows else tuple(mean * (count / rows) for mean in means))
    similarity, contrast = zip(*found, strict=True)
    return torch.stack(similarity).sum(0), torch.stack(contrast).sum(0)


def nominal_bits_per_pixel(num_codes: int, codebook_size: int, num_pixels: int) -> float:
    """Bits per pixel of codes stored with a fixed length: T log2 K / (H W)."""
    return num_codes * math.log2(codebook_size) / num_pixels
