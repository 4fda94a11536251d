"""Noise on images, for models that restore the clean ones. What is corrupted stays in [0, 1]."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smalti.images.preprocessing import Corruption
from smalti.ops import randomness

GREY = 0.5  # of what masking hides


def corrupt(images: Tensor, corruption: Corruption, generator: torch.Generator | None = None) -> Tensor:
    """The images (B, C, H, W) in [0, 1] with noise, in [0, 1] too; without noise the same images.

    - gaussian: plus independent N(0, level^2) on every value, clamped: an image file holds no other values, so at white
      and black the noise is weaker than its level;
    - salt_and_pepper: a pixel is replaced with probability level, in all channels, by white or black alike;
    - masking: a square of noise_patch pixels, on a grid from the top left, becomes grey with probability level.

    Args:
        images: clean.
        corruption: kind and levels of the noise; where it has two levels, every image gets one between them.
        generator: of the noise; torch's global one by default.
    """
    if corruption.noise == "none":
        return images
    assert corruption.noise_level is not None and corruption.noise_lowest is not None
    batch, _, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        if generator is None:
            return randomness.uniform(*shape, like=images)
        return torch.rand(shape, generator=generator, device=generator.device).to(images.device)

    level: Tensor | float = corruption.noise_level
    if corruption.noise_lowest < corruption.noise_level:
        level = corruption.noise_lowest + (corruption.noise_level - corruption.noise_lowest) * uniform(batch, 1, 1, 1)
    if corruption.noise == "gaussian":
        if generator is None:
            normal = randomness.normal(*images.shape, like=images)
        else:
            normal = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
        return (images + level * normal).clamp(0, 1)
    if corruption.noise == "salt_and_pepper":
        salt = (uniform(batch, 1, height, width) < 0.5).to(images.dtype)
        return torch.where(uniform(batch, 1, height, width) < level, salt, images)
    side = min(corruption.noise_patch or 1, max(height, width))
    masked = uniform(batch, 1, math.ceil(height / side), math.ceil(width / side)) < level
    masked = masked.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)[..., :height, :width]
    return torch.where(masked, images.new_tensor(GREY), images)


def corrupt_each(
    images: Sequence[Tensor] | Tensor, corruption: Corruption, seed: int = 0, first: int = 0
) -> list[Tensor]:
    """As `corrupt`, for images (C, H, W) of any sizes; the noise of one depends on `seed` and its place alone.

    The first image has the place `first`.

    The noise of one seed at several levels is the same up to the level.
    """
    noisy, generator = [], torch.Generator()
    for place, image in enumerate(images, first):
        generator.manual_seed(int(np.random.SeedSequence([seed, place]).generate_state(1)[0]))
        noisy.append(corrupt(image[None], corruption, generator)[0])
    return noisy
