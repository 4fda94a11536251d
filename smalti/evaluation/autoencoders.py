"""The evaluation protocol of all autoencoders: every number is over a whole split, summed first and divided once."""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import smalti
from smalti.configs import to_dict
from smalti.data.batches import Pixels
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
from smalti.evaluation.perception import FeatureNetwork, Observer
from smalti.evaluation.samples import measure_samples
from smalti.evaluation.spread import PerImage
from smalti.images.fidelity import mse, psnr_db
from smalti.images.pixels import model_images
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
        progress: show a bar on stderr.

    Returns:
        What was measured on what: data (in words), data_config (`DataConfig`), split, num_images, fingerprint (of the
        images), preprocessing, model_hash, the networks; "metrics", with the standard deviation of most over bootstrap
        resamples of the images in "spread", and what "originals" have where a metric must be set beside that.

    Raises:
        SmaltiError: no such data or split, or samples of a model without a prior.
    """
    source = open_data(data, split)
    preprocessing = model.config.preprocessing
    pixels = Pixels(source, preprocessing, progress=progress)
    if (importance_samples or samples) and not model.bottleneck.has_prior:
        flag = "importance_samples" if importance_samples else "samples"
        raise SmaltiError(f"this model has no p(z), so no likelihood and no samples; leave --{flag} out")
    with torch.random.fork_rng(), using(model) as still:
        totals = _Totals(still, Observer(networks or {}))
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
        "preprocessing": {**preprocessing.in_words, "resize": preprocessing.resize, "range": "[0, 1]"},
        "importance_samples": importance_samples,
        "model_hash": model.source_hash,
        "smalti": smalti.__version__,
        "networks": totals.observer.about(),
        **totals.results(),
    }
    if samples:
        measure_samples(result, data, samples, preprocessing, totals.observer.networks, sampler_of_model(model))
    return result


def _images(model: Autoencoder, pixels: Pixels, batch_size: int, progress: bool) -> Iterator[Tensor]:
    """Batches of the split in order, on the model's device."""
    generator = torch.Generator().manual_seed(SEED)
    with tqdm(total=len(pixels), desc="evaluating", unit="image", disable=not progress, leave=False) as bar:
        for batch in pixels.in_order(batch_size):
            yield model_images(batch, model.config.preprocessing, generator).to(model.device)
            bar.update(len(batch))


class _Totals:
    """What is known of a split's images; `results` divides once."""

    def __init__(self, model: Autoencoder, observer: Observer):
        self.model, self.observer = model, observer
        self.measured, self.of_originals = PerImage(), PerImage()
        self.bf16_equal = self.bf16_codes = 0
        bottleneck = model.bottleneck
        self.discrete = bottleneck if isinstance(bottleneck, DiscreteBottleneck) else None
        self.counts: Tensor | None = None  # (q, K)
        self.nominal_bits_per_pixel = 0.0
        self.latents = LatentStatistics(bottleneck)

    def add(self, images: Tensor, importance_samples: int) -> None:
        """Count one batch (B, C, H, W)."""
        model = self.model
        features = model.features(images)
        bottleneck = model.bottleneck(features)
        self.latents.add(features)
        parameters = model.decoder(bottleneck.latents)
        self._fidelity(images, model.likelihood.mean(parameters))
        self._likelihoods(images, features, parameters, bottleneck.kl)
        if importance_samples:
            self.measured.add(nll_nats=importance_sampled_nll(model, images, importance_samples))
        if self.discrete is not None and bottleneck.codes is not None:
            self._codes(images, bottleneck.codes)

    def _fidelity(self, images: Tensor, reconstructions: Tensor) -> None:
        """Errors, artefacts, and what networks see."""
        errors = mse(images, reconstructions)
        self.measured.add(
            psnr_db=psnr_db(errors.clamp(min=1e-10)),
            ssim=ssim(images, reconstructions),
            ms_ssim=ms_ssim(images, reconstructions),
            mse=errors,
            ring_error=artefacts.ring_error(images, reconstructions),
        )
        for shown, kept in ((reconstructions, self.measured), (images, self.of_originals)):
            kept.add(
                sharpness=artefacts.sharpness(images, shown),
                period2_energy=artefacts.period2_energy(shown),
                border_ratio=artefacts.border_ratio(shown, self.model.stride),
            )
        self.measured.add(**self.observer.add_pairs("originals", images, "made", reconstructions))

    def _likelihoods(self, images: Tensor, features: Tensor, parameters: Tensor, kl: Tensor) -> None:
        """-log p(x|z) for deterministic, relaxed and sampled latents, and the bounds that follow."""
        model = self.model
        self.measured.add(**self._distortion("", parameters, images))
        as_trained = copy.deepcopy(model.bottleneck).train()  # a copy, since training mode collects statistics
        self.measured.add(**self._distortion("relaxed_", model.decoder(as_trained(features).latents), images))
        if not model.bottleneck.has_prior:
            return
        latents = model.bottleneck.sample_posterior(features).latents
        sampled = self._distortion("sampled_", model.decoder(latents), images)
        nats, bits = sampled["sampled_distortion_nats"], sampled.get("sampled_distortion_bits")
        per_dim = None if bits is None else (bits + kl / math.log(2)) / images[0].numel()
        self.measured.add(
            sampled_distortion_nats=nats, rate_nats=kl, elbo_nats=-(nats.double() + kl.double()), bits_per_dim=per_dim
        )

    def _distortion(self, kind: str, parameters: Tensor, images: Tensor) -> dict[str, Tensor]:
        """-log p(x|z) of images, in nats and in bits of their 8-bit pixels."""
        values = {f"{kind}distortion_nats": self.model.likelihood.nll(parameters, images)}
        with contextlib.suppress(SmaltiError):  # a Bernoulli on grey images is no likelihood of pixels
            values[f"{kind}distortion_bits"] = self.model.likelihood.bits(parameters, images)
        return values

    def _codes(self, images: Tensor, codes: Tensor) -> None:
        """Count codes, and those that a bf16 encoder gives too."""
        assert self.discrete is not None
        counts = self.discrete.histogram(codes)
        self.counts = counts if self.counts is None else self.counts + counts
        size = (self.discrete.codebook_size, *images.shape[-2:])
        self.nominal_bits_per_pixel = nominal_bits_per_pixel(codes[0].numel(), *size)
        if self.bf16_codes < BF16_IMAGES * codes[0].numel():
            with torch.autocast(images.device.type, dtype=torch.bfloat16):
                rounded = self.discrete.encode(self.model.features(images))
            self.bf16_equal += int((rounded == codes).sum())
            self.bf16_codes += rounded.numel()

    def results(self) -> dict[str, dict[str, float]]:
        """Metrics in the order of the catalogue, their spread, and the originals' own values."""
        measured, originals = self.measured, self.of_originals
        found = {name: measured.value(name) for name in measured}
        spread = {name: measured.spread(name) for name in measured}
        found["psnr_of_mean_mse_db"] = -10 * math.log10(max(found["mse"], 1e-10))
        found |= self.latents.metrics()
        if self.counts is not None:
            found |= {"usage": usage(self.counts), "perplexity": perplexity(self.counts)}
            found["nominal_bits_per_pixel"] = self.nominal_bits_per_pixel
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
