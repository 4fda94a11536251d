"""Pure functions on images; every name says its unit. Errors: `smalti.images.fidelity`; codes: `smalti.ops.counts`."""

import math

from torch import Tensor

SSIM_WINDOW_PX = 11


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor | None:
    """Structural similarity with an 11-pixel Gaussian window, one per image (B,); Wang et al., 2004.

    None when the package pytorch-msssim is not installed or the images are smaller than the window.
    """
    return _by_package("ssim", images, reconstructions, SSIM_WINDOW_PX)


def ms_ssim(images: Tensor, reconstructions: Tensor) -> Tensor | None:
    """Structural similarity over five scales, one per image (B,); Wang et al., 2003.

    None when the package pytorch-msssim is not installed or the images are too small: 160 pixels and less.
    """
    return _by_package("ms_ssim", images, reconstructions, (SSIM_WINDOW_PX - 1) * 2**4 + 1)


def _by_package(name: str, images: Tensor, reconstructions: Tensor, least_px: int) -> Tensor | None:
    try:
        import pytorch_msssim
    except ImportError:
        return None
    if min(images.shape[-2:]) < least_px:
        return None
    result = getattr(pytorch_msssim, name)(images, reconstructions, data_range=1.0, size_average=False)
    assert isinstance(result, Tensor)
    return result


def nominal_bits_per_pixel(num_codes: int, codebook_size: int, height: int, width: int) -> float:
    """Bits per pixel of codes stored with a fixed length: T log2 K / (H W)."""
    return num_codes * math.log2(codebook_size) / (height * width)
