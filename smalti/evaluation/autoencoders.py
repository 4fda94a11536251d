"""The evaluation protocol of all autoencoders: every number is over a whole split, summed first and divided once."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import smalti
from smalti.configs import to_dict
from smalti.data.batches import Pixels
from smalti.data.sources import Source, open_data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.evaluation.latents import LatentStatistics
from smalti.evaluation.metrics import mse, nominal_bits_per_pixel, psnr_db, ssim
from smalti.images.pixels import model_images
from smalti.models.autoencoder import Autoencoder, using
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.ops.counts import perplexity, usage

BF16_IMAGES = 1024  # encoded a second time in bf16
SAMPLED_VALUES = 1 << 19  # values of importance samples at a time: what fits into a core's cache is faster
SEED = 0  # of binarisation and of posterior samples: evaluation is deterministic


def evaluate(
    model: Autoencoder,
    data: str,
    split: Split = "test",
    *,
    batch_size: int = 64,
    importance_samples: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on every image of a split.

    In "metrics", all means over images unless said otherwise:

    - mse, psnr_db (mean of the images' PSNR), psnr_of_mean_mse_db (PSNR of the mean error), ssim: of the deterministic
      reconstruction (the arg max code, the mean of a Gaussian), clamped to [0, 1];
    - usage, perplexity: of the histogram of all codes of the split;
    - distortion_nats: -log p(x|z) per image for the deterministic latents; distortion_bits: the same for 8-bit pixels;
    - sampled_distortion_nats: for one sample z ~ q(z|x); rate_nats: KL(q || p); elbo_nats: minus their sum;
    - relaxed_distortion_nats: in training mode, with noise and the last temperature; for a dVAE the difference to
      distortion_nats is the relaxation gap;
    - bits_per_dim: (bits of the 8-bit pixels under one sample + rate) / (C H W), an upper bound on the code length;
    - nominal_bits_per_pixel: of the codes at fixed length;
    - bf16_equal_codes: bf16 code agreement, the share of codes that a bf16 encoder gives too;
    - active_units, active_unit_share, aggregate_kl_nats, information_bound_nats: of a Gaussian q(z|x), see
      `smalti.evaluation.latents.LatentStatistics`;
    - nll_nats: -log p(x) estimated with `importance_samples` samples (a bound that tightens with their number).

    Args:
        model: in any mode.
        data: as for `smalti.open_data`.
        split: "train", "validation", "test" or "all".
        batch_size: images at a time; does not change the result.
        importance_samples: for nll_nats; 0 leaves it out.
        progress: show a bar on stderr.

    Returns:
        What was measured on what: data, split, num_images, preprocessing, model_hash, metrics.

    Raises:
        SmaltiError: no such data or split, or importance samples of a model without a prior.
    """
    source = open_data(data, split)
    preprocessing = model.config.preprocessing
    pixels = Pixels(source, preprocessing, progress=progress)
    if importance_samples and not model.bottleneck.has_prior:
        raise SmaltiError("this model has no p(z), so no likelihood; leave --importance_samples out")
    totals = _Totals(model, len(pixels))
    with torch.random.fork_rng(), using(model):
        torch.manual_seed(SEED)
        for images in _images(model, pixels, batch_size, progress):
            totals.add(images, importance_samples)
    return {
        "data": data,
        "split": split,
        "num_images": len(pixels),
        "num_bad_images": len(pixels.bad),
        "preprocessing": {**to_dict(preprocessing), "resize": "centre square, antialiased bicubic", "range": "[0, 1]"},
        "importance_samples": importance_samples,
        "model_hash": model.source_hash,
        "smalti": smalti.__version__,
        "metrics": totals.metrics(),
    }


def _images(model: Autoencoder, pixels: Pixels, batch_size: int, progress: bool) -> Iterator[Tensor]:
    """Batches of the split in order, on the model's device."""
    generator = torch.Generator().manual_seed(SEED)
    with tqdm(total=len(pixels), desc="evaluating", unit="image", disable=not progress, leave=False) as bar:
        for batch in pixels.in_order(batch_size):
            yield model_images(batch, model.config.preprocessing, generator).to(model.device)
            bar.update(len(batch))


class _Totals:
    """Sums over a split; `metrics` divides once."""

    def __init__(self, model: Autoencoder, num_images: int):
        self.model, self.num_images = model, num_images
        self.sums: dict[str, float] = {}
        self.dims = self.height = self.width = self.codes_per_image = 0
        self.seen = self.bf16_equal = self.bf16_codes = 0
        bottleneck = model.bottleneck
        self.discrete = bottleneck if isinstance(bottleneck, DiscreteBottleneck) else None
        self.counts: Tensor | None = None  # (q, K)
        self.latents = LatentStatistics(bottleneck)

    def _sum(self, **values: Tensor | None) -> None:
        for name, value in values.items():
            if value is not None:
                self.sums[name] = self.sums.get(name, 0.0) + value.double().sum().item()

    def add(self, images: Tensor, importance_samples: int) -> None:
        """Count one batch (B, C, H, W)."""
        model = self.model
        self.dims, (self.height, self.width) = images[0].numel(), images.shape[-2:]
        features = model.features(images)
        bottleneck = model.bottleneck(features)
        self.latents.add(features)
        parameters = model.decoder(bottleneck.latents)
        reconstructions = model.likelihood.mean(parameters)
        errors = mse(images, reconstructions)
        self._sum(mse=errors, psnr_db=psnr_db(errors.clamp(min=1e-10)), ssim=ssim(images, reconstructions))
        self._distortion("", parameters, images)
        as_trained = copy.deepcopy(model.bottleneck).train()  # a copy, since training mode collects statistics
        self._distortion("relaxed_", model.decoder(as_trained(features).latents), images)
        if model.bottleneck.has_prior:
            self._sum(rate_nats=bottleneck.kl)
            latents = model.bottleneck.sample_posterior(features).latents
            self._distortion("sampled_", model.decoder(latents), images)
        if importance_samples:
            self._sum(nll_nats=importance_sampled_nll(model, images, importance_samples))
        if self.discrete is not None and bottleneck.codes is not None:
            self.codes_per_image = bottleneck.codes[0].numel()
            counts = self.discrete.histogram(bottleneck.codes)
            self.counts = counts if self.counts is None else self.counts + counts
            if self.seen < BF16_IMAGES:
                with torch.autocast(images.device.type, dtype=torch.bfloat16):
                    rounded = self.discrete.encode(model.features(images))
                self.bf16_equal += int((rounded == bottleneck.codes).sum())
                self.bf16_codes += rounded.numel()
        self.seen += len(images)

    def _distortion(self, kind: str, parameters: Tensor, images: Tensor) -> None:
        """Sum -log p(x|z) of images, in nats and in bits of their 8-bit pixels."""
        values = {f"{kind}distortion_nats": self.model.likelihood.nll(parameters, images)}
        with contextlib.suppress(SmaltiError):  # a Bernoulli on grey images is no likelihood of pixels
            values[f"{kind}distortion_bits"] = self.model.likelihood.bits(parameters, images)
        self._sum(**values)

    def metrics(self) -> dict[str, float]:
        """The means, in the order of the protocol."""
        mean = {name: total / self.num_images for name, total in self.sums.items()}
        result = {name: mean[name] for name in ("psnr_db", "ssim", "mse") if name in mean}
        result["psnr_of_mean_mse_db"] = -10 * math.log10(max(mean["mse"], 1e-10))
        if self.counts is not None:
            result |= {"usage": usage(self.counts), "perplexity": perplexity(self.counts)}
        names = [f"{kind}distortion_{unit}" for kind in ("", "relaxed_") for unit in ("nats", "bits")]
        names += ["sampled_distortion_nats", "rate_nats"]
        result |= {name: mean[name] for name in names if name in mean}
        if "rate_nats" in mean:
            result["elbo_nats"] = -(mean["sampled_distortion_nats"] + mean["rate_nats"])
            if "sampled_distortion_bits" in mean:
                bits = mean["sampled_distortion_bits"] + mean["rate_nats"] / math.log(2)
                result["bits_per_dim"] = bits / self.dims
        if "nll_nats" in mean:
            result["nll_nats"] = mean["nll_nats"]
        if self.counts is not None:
            size = (self.counts.shape[1], self.height, self.width)
            result["nominal_bits_per_pixel"] = nominal_bits_per_pixel(self.codes_per_image, *size)
            result["bf16_equal_codes"] = self.bf16_equal / max(1, self.bf16_codes)
        return result | self.latents.metrics()


@torch.no_grad()
def importance_sampled_nll(model: Autoencoder, images: Tensor, num_samples: int) -> Tensor:
    """-ln( 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x) ), nats per image (B,), with S samples z_s ~ q(z|x).

    An upper bound on -ln p(x) in expectation that tightens with S; Burda et al., arXiv:1509.00519, eq. 8. The images
    are (B, C, H, W) in [0, 1], the model has a prior.
    """
    features = model.features(images)
    total = torch.full((len(images),), -math.inf, device=images.device, dtype=torch.float64)
    at_once = max(1, SAMPLED_VALUES // images.numel())
    for start in range(0, num_samples, at_once):
        count = min(at_once, num_samples - start)
        latents, log_ratio, _ = model.bottleneck.sample_posterior(features.repeat(count, 1, 1, 1))
        nll = model.likelihood.nll(model.decoder(latents), images.repeat(count, 1, 1, 1))
        log_weights = (log_ratio - nll).double().view(count, len(images))
        total = torch.logaddexp(total, log_weights.logsumexp(0))
    return math.log(num_samples) - total


def count_codes(model: Autoencoder, source: Source, batch_size: int = 64) -> Tensor:
    """How often each code occurs in a source's images, (q, K)."""
    bottleneck = model.codes_bottleneck
    counts = torch.zeros(bottleneck.num_codebooks, bottleneck.codebook_size, dtype=torch.int64)
    for images in _images(model, Pixels(source, model.config.preprocessing), batch_size, progress=False):
        counts += bottleneck.histogram(model.encode(images)).cpu()
    return counts
