"""The evaluation protocol of all autoencoders: every number is over a whole split, summed first and divided once."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import smalti
from smalti.configs import to_dict
from smalti.data.batches import Originals, Pixels
from smalti.data.config import Data, DataConfig
from smalti.data.source import Source
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.evaluation import artefacts
from smalti.evaluation.catalogue import in_order
from smalti.evaluation.generation import sampler_of_model
from smalti.evaluation.latents import LatentStatistics
from smalti.evaluation.metrics import ms_ssim, nominal_bits_per_pixel, ssim
from smalti.evaluation.passes import Pass, one_pass
from smalti.evaluation.perception import FeatureNetwork, Observer
from smalti.evaluation.samples import measure_samples
from smalti.evaluation.spread import PerImage
from smalti.images.fidelity import by_channel, mse, psnr_db
from smalti.images.pixels import model_images
from smalti.images.preprocessing import ORIGINAL
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.modes import using
from smalti.ops.counts import perplexity, usage

BF16_IMAGES = 1024  # encoded a second time in bf16
SAMPLED_VALUES = 1 << 19  # values of importance samples at a time: what fits into a core's cache is faster
SEED = 0  # of binarisation and of posterior samples: evaluation is deterministic


def evaluate(
    model: Autoencoder,
    data: Data,
    split: Split = "test",
    *,
    batch_size: int = 64,
    importance_samples: int = 0,
    networks: Mapping[str, FeatureNetwork] | None = None,
    samples: int = 0,
    image_size: int | str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on every image of a split; docs/evaluation.md says what each metric is.

    Args:
        model: in any mode.
        data: as for `smalti.open_data`.
        split: "train", "validation", "test" or "all".
        batch_size: images at a time; does not change the result.
        importance_samples: for nll_nats; 0 leaves it out.
        networks: for distances of sets and pairs, see `open_networks`; without them there are none.
        samples: images from p(z) whose distance to the data is measured; 0 leaves it out.
        image_size: of the images, instead of that of the training, as 256 or 16x32; or "original": every image at its
            own size, one at a time, so that sizes may be mixed and large.
        progress: show a bar on stderr.

    Returns:
        What was measured on what: data (in words), data_config (`DataConfig`), split, num_images, fingerprint (of the
        images), preprocessing, model_hash, the networks; "metrics", with the standard deviation of most over bootstrap
        resamples of the images in "spread", and what "originals" have where a metric must be set beside that.

    Raises:
        SmaltiError: no such data or split, samples of a model without a prior, or a size with which something else that
            is asked for cannot be measured.
    """
    source = open_data(data, split)
    _check_size(image_size, importance_samples, samples)
    preprocessing, original = model.config.preprocessing, image_size == ORIGINAL
    if image_size is not None and not original:
        preprocessing = replace(preprocessing, image_size=image_size)
    pixels = Originals(source, preprocessing) if original else Pixels(source, preprocessing, progress=progress)
    if (importance_samples or samples) and not model.bottleneck.has_prior:
        flag = "importance_samples" if importance_samples else "samples"
        raise SmaltiError(f"this model has no p(z), so no likelihood and no samples; leave --{flag} out")
    with torch.random.fork_rng(), using(model) as still:
        totals = _Totals(still, Observer(networks or {}), of_one_size=not original)
        torch.manual_seed(SEED)
        for images in _images(still, pixels, batch_size, progress):
            totals.add(images, importance_samples)
    result = {
        "data": source.name,
        "data_config": to_dict(DataConfig.of(data)),
        "split": split,
        "num_images": len(pixels),
        "fingerprint": source.fingerprint,
        "num_bad_images": len(pixels.bad),
        "preprocessing": {**preprocessing.in_words, "resize": preprocessing.resize, "range": "[0, 1]"}
        | ({"image_size": ORIGINAL, "resize": "none"} if original else {}),
        "importance_samples": importance_samples,
        "model_hash": model.source_hash,
        "smalti": smalti.__version__,
        "networks": totals.observer.about(),
        **totals.results(),
    }
    if samples:
        measure_samples(result, data, samples, preprocessing, totals.observer.networks, sampler_of_model(model))
    return result


def _check_size(image_size: int | str | None, importance_samples: int, samples: int) -> None:
    if importance_samples and image_size == ORIGINAL:
        raise SmaltiError("importance samples are of images of one size; give another --image_size, or leave one out")
    if samples and image_size is not None:
        raise SmaltiError("samples are of the size of the training; leave --image_size or --samples out")


def _images(model: Autoencoder, pixels: Pixels | Originals, batch_size: int, progress: bool) -> Iterator[Tensor]:
    """Batches of the split in order, on the model's device."""
    generator = torch.Generator().manual_seed(SEED)
    with tqdm(total=len(pixels), desc="evaluating", unit="image", disable=not progress, leave=False) as bar:
        for batch in pixels.in_order(batch_size):
            yield model_images(batch, model.config.preprocessing, generator).to(model.device)
            bar.update(len(batch))


class _Totals:
    """What is known of a split's images; `results` divides once."""

    def __init__(self, model: Autoencoder, observer: Observer, *, of_one_size: bool):
        self.model, self.observer = model, observer
        self.measured, self.of_originals = PerImage(), PerImage()
        self.bf16_equal = self.bf16_codes = 0
        bottleneck = model.bottleneck
        self.discrete = bottleneck if isinstance(bottleneck, DiscreteBottleneck) else None
        self.counts: Tensor | None = None  # (q, K)
        self.num_codes = self.num_pixels = 0
        self.latents = LatentStatistics(bottleneck if of_one_size else None)

    def add(self, images: Tensor, importance_samples: int) -> None:
        """Count one batch (B, C, H, W)."""
        found = one_pass(self.model, images, self.latents.add)
        self._fidelity(images, found.reconstructions)
        self._likelihoods(images, found)
        if importance_samples:
            self.measured.add(nll_nats=importance_sampled_nll(self.model, images, importance_samples))
        if self.discrete is not None and found.codes is not None:
            self._codes(images, found.codes)

    def _fidelity(self, images: Tensor, reconstructions: Tensor) -> None:
        """Errors, artefacts, and what networks see."""
        both = images, reconstructions
        errors = by_channel(mse, *both)
        self.measured.add(
            psnr_db=psnr_db(errors.clamp(min=1e-10)),
            ssim=ssim(*both),
            ms_ssim=ms_ssim(*both),
            mse=errors,
            ring_error=by_channel(artefacts.ring_error, *both),
        )
        for shown, kept in ((reconstructions, self.measured), (images, self.of_originals)):
            kept.add(
                sharpness=by_channel(artefacts.sharpness, images, shown),
                period2_energy=by_channel(artefacts.period2_energy, shown),
                border_ratio=by_channel(partial(artefacts.border_ratio, stride=self.model.stride), shown),
            )
        self.measured.add(**self.observer.add_pairs("originals", images, "made", reconstructions))

    def _likelihoods(self, images: Tensor, found: Pass) -> None:
        """-log p(x|z) for deterministic, relaxed and sampled latents, and the bounds that follow."""
        distortions = dict(found.distortions)
        nats, bits = (distortions.pop(f"sampled_distortion_{unit}", None) for unit in ("nats", "bits"))
        self.measured.add(**distortions)
        if nats is None:
            return
        per_dim = None if bits is None else (bits + found.kl / math.log(2)) / images[0].numel()
        elbo = -(nats.double() + found.kl.double())
        self.measured.add(sampled_distortion_nats=nats, rate_nats=found.kl, elbo_nats=elbo, bits_per_dim=per_dim)

    def _codes(self, images: Tensor, codes: Tensor) -> None:
        """Count codes, and those that a bf16 encoder gives too."""
        assert self.discrete is not None
        counts = self.discrete.histogram(codes)
        self.counts = counts if self.counts is None else self.counts + counts
        self.num_codes += codes.numel()
        self.num_pixels += len(images) * images[0, 0].numel()
        if self.bf16_codes < BF16_IMAGES * codes[0].numel():
            with torch.autocast(images.device.type, dtype=torch.bfloat16):
                rounded = self.model.tiles.encode(images, self.model.features, self.discrete.encode)
            self.bf16_equal += int((rounded == codes).sum())
            self.bf16_codes += rounded.numel()

    def results(self) -> dict[str, dict[str, float]]:
        """Metrics in the order of the catalogue, their spread, and the originals' own values."""
        measured, originals = self.measured, self.of_originals
        found = {name: measured.value(name) for name in measured}
        spread = {name: measured.spread(name) for name in measured}
        found["psnr_of_mean_mse_db"] = -10 * math.log10(max(found["mse"], 1e-10))
        found |= self.latents.metrics()
        if self.counts is not None and self.discrete is not None:
            found |= {"usage": usage(self.counts), "perplexity": perplexity(self.counts)}
            size = self.discrete.codebook_size, self.num_pixels
            found["nominal_bits_per_pixel"] = nominal_bits_per_pixel(self.num_codes, *size)
            found["bf16_equal_codes"] = self.bf16_equal / max(1, self.bf16_codes)
        distances = self.observer.distances("made", "originals", paired=True)
        distances |= self.observer.halves("originals", prefix="halves_")
        found |= {name: distance.value for name, distance in distances.items()}
        spread |= {name: distance.spread for name, distance in distances.items()}
        return {
            "metrics": in_order(found),
            "spread": in_order(spread),
            "originals": {name: originals.value(name) for name in originals},
        }


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
