"""What `smalti compare` measures besides the evaluation: gradient noise, rate and distortion."""

import copy
import itertools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.evaluation.metrics import mse, psnr_db
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.training.experiment import LossConfig
from smalti.training.losses import autoencoder_loss

GRADIENT_REPEATS = 8


class GradientNoise(NamedTuple):
    """Variation of the encoder's gradient over repeated passes of the same images: the bottleneck's noise."""

    relative_deviation: float  # root of the summed variances / norm of the mean
    cosine: float  # between two passes


def gradient_noise(model: Autoencoder, images: Tensor, loss: LossConfig) -> GradientNoise:
    """Repeat the training loss of the same images, as it was in the end, and compare the encoder's gradients."""
    trained = copy.deepcopy(model).train()  # a copy, since training mode collects statistics
    parameters = list(trained.encoder.parameters())
    gradients = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(GRADIENT_REPEATS):
            total = autoencoder_loss(trained, images, loss, loss.beta.end).total
            gradients.append(torch.cat([part.flatten() for part in torch.autograd.grad(total, parameters)]))
    stacked = torch.stack(gradients)
    mean = stacked.mean(0)
    cosines = [F.cosine_similarity(*pair, dim=0) for pair in itertools.combinations(gradients, 2)]
    deviation = stacked.var(0).sum().sqrt() / mean.norm().clamp(min=1e-12)
    return GradientNoise(deviation.item(), torch.stack(cosines).mean().item())


def rate_distortion(model: Autoencoder, metrics: dict[str, Any], images: Tensor) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR in dB) of a model, and of each prefix of its codebooks that decodes."""
    bottleneck, pixels = model.bottleneck, images[0, 0].numel()
    if not isinstance(bottleneck, DiscreteBottleneck):
        rate = metrics.get("rate_nats")
        return [] if rate is None else [(rate / math.log(2) / pixels, metrics["psnr_db"])]
    if not bottleneck.prefix_decodable:
        return [(metrics["nominal_bits_per_pixel"], metrics["psnr_db"])]
    codes, points = model.encode(images), []
    for count in range(1, bottleneck.num_codebooks + 1):
        errors = mse(images, model.decode(codes[:, :count]).cpu())
        bits = codes[0, :count].numel() * math.log2(bottleneck.codebook_size) / pixels
        points.append((bits, psnr_db(errors.clamp(min=1e-10)).mean().item()))
    return points
