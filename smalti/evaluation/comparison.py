"""What `smalti compare` measures besides the evaluation: gradient noise, rate and distortion."""

import copy
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.evaluation.metrics import mse, psnr_db
from smalti.images.pixels import to_float
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck, ResidualQuantizer
from smalti.training.experiment import LossConfig
from smalti.training.losses import autoencoder_loss

GRADIENT_REPEATS = 8


class GradientNoise(NamedTuple):
    """Variation of the encoder's gradient over repeated passes of the same images: the bottleneck's noise."""

    relative_deviation: float  # root of the summed variances / norm of the mean
    cosine: float  # between two passes


def gradient_noise(model: Autoencoder, images: Tensor, loss: LossConfig, step: int) -> GradientNoise:
    """Repeat the training loss of the same images and compare the encoder's gradients."""
    trained = copy.deepcopy(model).train()  # a copy, since training mode collects statistics
    parameters = list(trained.encoder.parameters())
    gradients = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(GRADIENT_REPEATS):
            total = autoencoder_loss(trained, images, loss, step).total
            parts = torch.autograd.grad(total, parameters)
            gradients.append(torch.cat([part.flatten() for part in parts]))
    stacked = torch.stack(gradients)
    mean = stacked.mean(0)
    cosines = [
        F.cosine_similarity(first, second, dim=0)
        for index, first in enumerate(gradients)
        for second in gradients[:index]
    ]
    deviation = stacked.var(0).sum().sqrt() / mean.norm().clamp(min=1e-12)
    return GradientNoise(deviation.item(), torch.stack(cosines).mean().item())


def some_images(model: Autoencoder, data: str, split: str, count: int) -> Tensor:
    """Evenly spaced images (count, C, H, W) of a split, preprocessed for the model."""
    wanted = model.config.preprocessing
    source = open_data(data, split)  # pyright: ignore[reportArgumentType]
    pixels = Pixels(source, wanted.image_size, wanted.channels, fixed_binary=wanted.binarize == "fixed", memory_bytes=0)
    return to_float(pixels.evenly(count))


def rate_distortion(model: Autoencoder, metrics: dict[str, Any], images: Tensor) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR in dB) of a model; a residual quantizer has a point for each number of its codebooks."""
    bottleneck, pixels = model.bottleneck, images[0, 0].numel()
    if not isinstance(bottleneck, DiscreteBottleneck):
        rate = metrics.get("rate_nats")
        return [] if rate is None else [(rate / math.log(2) / pixels, metrics["psnr_db"])]
    if not isinstance(bottleneck, ResidualQuantizer):
        return [(metrics["nominal_bits_per_pixel"], metrics["psnr_db"])]
    codes, points = model.encode(images), []
    for count in range(1, bottleneck.num_codebooks + 1):
        errors = mse(images, model.decode(codes[:, :count]).cpu())
        bits = codes[0, :count].numel() * math.log2(bottleneck.codebook_size) / pixels
        points.append((bits, psnr_db(errors.clamp(min=1e-10)).mean().item()))
    return points
