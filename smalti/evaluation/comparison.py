"""What `smalti compare` measures besides the evaluation: gradients, the relaxation gap, rate and distortion, PCA."""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.data.batches import evenly_spread, some_images
from smalti.data.config import Data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.evaluation.metrics import ssim
from smalti.evaluation.pca import PCA_IMAGES, pca_reconstructions
from smalti.images.fidelity import mse, psnr_db
from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.modes import using
from smalti.training.experiment import LossConfig
from smalti.training.losses import autoencoder_loss, score_function_loss

GRADIENT_REPEATS = 8
TEMPERATURES = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
PCA_VALUES = 1 << 25  # of all images that PCA reconstructs


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


class GradientPath(NamedTuple):
    """The norm of the encoder's gradient of the distortion, nats per dimension, without and with what lets it pass."""

    blocked: float | None  # latents decoded from codes, or a z that is a number; None where nothing stops a gradient
    passed: float  # as in training


def gradient_path(model: Autoencoder, images: Tensor) -> GradientPath:
    """What reaches the encoder of the distortion of images (B, C, H, W), and what would without the remedy.

    Without it a discrete bottleneck's latents are `decode(encode(features))`, and those of a random posterior a sample
    that has forgotten its mean and deviation.
    """
    trained = copy.deepcopy(model).train()
    bottleneck, parameters = trained.bottleneck, list(trained.encoder.parameters())

    def norm(latents: Tensor, log_prob: Tensor | None = None) -> float:
        per_image = trained.likelihood.nll(trained.decoder(latents), images)
        total = per_image.mean()
        if log_prob is not None:
            total = total + score_function_loss(per_image, log_prob)
        gradients = torch.autograd.grad(total / images[0].numel(), parameters, allow_unused=True)
        return math.sqrt(sum(part.square().sum().item() for part in gradients if part is not None))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        output = bottleneck(trained.features(images))
        passed, features = norm(output.latents, output.log_prob), trained.features(images)
        if isinstance(bottleneck, DiscreteBottleneck):
            return GradientPath(norm(bottleneck.decode(bottleneck.encode(features))), passed)
        if bottleneck.random_posterior and bottleneck.has_prior:
            return GradientPath(norm(bottleneck.sample_posterior(features).latents.detach()), passed)
    return GradientPath(None, passed)


def relaxation(model: Autoencoder, images: Tensor, loss: LossConfig) -> dict[str, Any] | None:
    """The distortion of relaxed latents over temperature, beside that of codes; None where nothing is relaxed.

    Args:
        model: trained.
        images: (B, C, H, W).
        loss: that the model was trained with, for the noise of the gradient of the first 32 images.

    Returns:
        codes_distortion_nats (of `encode`), sampled_distortion_nats (of codes sampled from q(z|x), what the relaxation
        tends to as its temperature falls) and "rows", by falling temperature: temperature, relaxed_distortion_nats,
        relative_deviation and cosine of the gradient, see `GradientNoise`. Distortions are means over the images.
    """
    if not model.bottleneck.relaxes:
        return None
    heated, rows = copy.deepcopy(model), []

    with using(model) as still, torch.random.fork_rng():

        def distortion(latents: Tensor) -> float:
            return still.likelihood.nll(still.decoder(latents), images).mean().item()

        torch.manual_seed(0)
        features = still.features(images)
        codes = distortion(still.bottleneck(features).latents)
        sampled = distortion(still.bottleneck.sample_posterior(features).latents)
        heated.bottleneck.train()
        for temperature in TEMPERATURES:
            heated.bottleneck.set_temperature(temperature)
            relaxed = distortion(heated.bottleneck(features).latents)
            rows.append({"temperature": temperature, "relaxed_distortion_nats": relaxed})
    for row in rows:
        heated.bottleneck.set_temperature(row["temperature"])
        row.update(gradient_noise(heated, images[:32], loss)._asdict())
    return {"codes_distortion_nats": codes, "sampled_distortion_nats": sampled, "rows": rows}


class PCABaseline(NamedTuple):
    """PCA to as many numbers as a system's latents have, on the images that the system is measured on."""

    dims: int
    num_images: int
    metrics: Mapping[str, float]  # psnr_db, and ssim where it can be measured; none where it is left out
    left_out: str  # why it is; "" where it is not
    shown: Tensor | None  # (B, C, H, W), the reconstructions of evenly spread images


def pca_baseline(data: Data, split: Split, preprocessing: Preprocessing, dims: int, num_shown: int) -> PCABaseline:
    """Fit PCA on at most 5,000 training images, and reconstruct a split, or as much of it as memory allows.

    Args:
        data: what the splits are of.
        split: what is reconstructed.
        preprocessing: of the images.
        dims: of the code.
        num_shown: reconstructions to keep.
    """
    num_values = preprocessing.num_dims
    if dims >= num_values:
        why = f"{dims:,} latents are no fewer than the {num_values:,} values of an image: nothing is reduced"
        return PCABaseline(dims, 0, {}, why, None)
    train = some_images(data, "train", preprocessing, PCA_IMAGES)
    images = some_images(data, split, preprocessing, PCA_VALUES // num_values)
    try:
        found = pca_reconstructions(train, images, dims)
    except SmaltiError as error:
        return PCABaseline(dims, len(images), {}, str(error), None)
    similarity = ssim(images, found.images)
    metrics = {"psnr_db": found.psnr_db}
    if similarity is not None:
        metrics["ssim"] = similarity.mean().item()
    places = evenly_spread(len(images), num_shown)
    return PCABaseline(dims, len(images), metrics, "", found.images[places])


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
