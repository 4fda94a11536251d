"""What each number of an evaluation is: its label, unit, form, direction and meaning, said once for every table."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


class Metric(NamedTuple):
    """How a metric is shown and read."""

    label: str
    unit: str  # "" has none
    form: str  # of `format`
    better: Literal["higher", "lower", ""]  # "" is neither: to be set beside something else
    meaning: str  # one sentence


# Sets whose distance to the split is measured beside that of reconstructions: whose it is, what is better, the meaning.
SETS: dict[str, tuple[str, Literal["lower", ""], str]] = {
    "halves_": ("two halves", "", "Of every other original to the rest: what chance gives at half of N."),
    "sample_": ("samples", "lower", "Of samples to as many images of the split."),
    "real_": ("real images", "", "Of as many images of another split: what samples cannot be expected to beat."),
    "reconstruction_": ("reconstructions", "", "Of the tokenizer's reconstructions: what a perfect prior would reach."),
}

# fmt: off
SET_METRICS = {
    "fd_effnet": Metric("FD-EffNet", "", ".2f", "lower",
        "Frechet distance of reconstructions to their originals on EfficientNet-Lite0 features; falls with N."),
    "kid_effnet": Metric("KID-EffNet", "", ".2f", "lower",
        "Kernel distance of reconstructions to their originals on EfficientNet-Lite0 features; unbiased."),
    "fid": Metric("FID", "", ".2f", "lower",
        "Frechet distance of reconstructions on InceptionV3 features by torch-fidelity: rFID in papers."),
    "kid": Metric("KID", "", ".5f", "lower", "Kernel distance of reconstructions on the same InceptionV3 features."),
}
METRICS: dict[str, Metric] = {  # in the order of tables; a meaning that is too long for its line stands below it
    "psnr_db": Metric("PSNR", "dB", ".2f", "higher",
        "Mean of the images' PSNR, deterministic reconstruction clamped to [0, 1]; blind to where the error is."),
    "psnr_of_mean_mse_db": Metric("PSNR of the mean error", "dB", ".2f", "higher",
        "PSNR of the mean squared error of the split; never above psnr_db."),
    "ssim": Metric("SSIM", "", ".3f", "higher",
        "Structural similarity with an 11-pixel Gaussian window, of the deterministic reconstruction."),
    "ms_ssim": Metric("MS-SSIM", "", ".3f", "higher", "Structural similarity over five scales, above 160 px."),
    "mse": Metric("MSE", "", ".3g", "lower", "Mean squared error of values in [0, 1], deterministic reconstruction."),
    "effnet_lpips": Metric("EffNet-LPIPS", "", ".3f", "lower",
        "Distance of EfficientNet-Lite0 features to those of the original, in the form of LPIPS (not LPIPS)."),
    "lpips": Metric("LPIPS", "", ".4f", "lower", "LPIPS 0.1 on AlexNet, by the package of its authors."),
    **SET_METRICS,
    **{
        prefix + name: metric._replace(label=f"{metric.label}, {whose}", better=better, meaning=meaning)
        for prefix, (whose, better, meaning) in SETS.items() for name, metric in SET_METRICS.items()
    },
    "border_ratio": Metric("border ratio", "", ".2f", "",
        "Squared jumps across the borders of grid cells over all jumps; above the originals' is visible squares."),
    "period2_energy": Metric("period-2 energy", "", ".2f", "",
        "Energy of second over first differences; 4 is a pixel checkerboard, below the originals' is blur."),
    "ring_error": Metric("ring error", "", ".2f", "lower",
        "Squared error of the outermost pixels over that of the inside; 1 is spread evenly."),
    "sharpness": Metric("sharpness", "", ".3f", "",
        "Energy of central differences as a share of the originals'; below 1 is blur, a checkerboard adds nothing."),
    "usage": Metric("codebook usage", "", ".1%", "higher", "Share of the K codes that occur in the split."),
    "perplexity": Metric("perplexity", "codes", ".0f", "higher",
        "exp(entropy) of the histogram of all codes of the split."),
    "distortion_nats": Metric("distortion", "nats", ".4g", "lower",
        "-log p(x given z) of an image for its deterministic latents: density of the values in [0, 1]."),
    "distortion_bits": Metric("distortion", "bits", ".4g", "lower", "The same as the exact cost of the 8-bit pixels."),
    "relaxed_distortion_nats": Metric("relaxed distortion", "nats", ".4g", "lower",
        "Distortion in training mode, for a dVAE with noise and the last temperature; less distortion_nats it is the "
        "relaxation gap."),
    "relaxed_distortion_bits": Metric("relaxed distortion", "bits", ".4g", "lower",
        "The same as the cost of the 8-bit pixels."),
    "sampled_distortion_nats": Metric("sampled distortion", "nats", ".4g", "lower",
        "Distortion for one sample z ~ q(z given x)."),
    "rate_nats": Metric("rate", "nats", ".4g", "", "KL(q(z given x), p(z)) of an image."),
    "elbo_nats": Metric("ELBO", "nats", ".4g", "higher",
        "A lower bound of log p(x): minus the sum of sampled distortion and rate."),
    "nll_nats": Metric("-log p(x)", "nats", ".4g", "lower",
        "-log p(x) of an image by importance sampling (--importance_samples), an upper bound; of a prior, -log "
        "p(codes given condition)."),
    "bits": Metric("bits", "", ".4g", "lower",
        "-log2 p(codes given condition) of an image under a prior; of MaskGIT an upper bound."),
    "bits_per_code": Metric("bits per code", "", ".2f", "lower", "The bits of an image under a prior, per code."),
    "bits_per_dim": Metric("bits per dim", "", ".3f", "lower",
        "Bits per value of the image, C H W: of an autoencoder (8-bit pixels under one sample + rate), an upper "
        "bound for every likelihood; of a prior its bits, for exact pixels the figure of the literature."),
    "histogram_bits_per_code": Metric("histogram's", "bits", ".2f", "",
        "Bits per code under the per-position histogram of the training codes."),
    "uniform_bits_per_code": Metric("fixed length", "bits", ".2f", "", "log2 K."),
    "share_of_histogram": Metric("of the histogram's", "", ".0%", "lower", "bits_per_code / histogram_bits_per_code."),
    "nominal_bits_per_pixel": Metric("bits per pixel", "", ".3f", "", "The codes at fixed length, T log2 K / (H W)."),
    "bf16_equal_codes": Metric("bf16 code agreement", "", ".1%", "higher",
        "Share of the codes that a bf16 encoder gives too."),
    "linear_accuracy": Metric("linear probe", "", ".1%", "higher",
        "Accuracy of a logistic regression on the representation, see docs/features.md."),
    "knn_accuracy": Metric("nearest neighbours", "", ".1%", "higher",
        "Accuracy of the vote of the 5 nearest training images in the representation."),
    "majority_accuracy": Metric("majority", "", ".1%", "", "Accuracy of always saying the commonest training label."),
    "active_units": Metric("active units", "", ".0f", "",
        "Latent dimensions (a channel at a position) whose posterior mean has a variance above 0.01 over the images "
        "(arXiv:1509.00519); the decoder ignores the others."),
    "active_unit_share": Metric("active units, share", "", ".1%", "higher", "The same, of all latent dimensions."),
    "aggregate_kl_nats": Metric("aggregate KL", "nats", ".4g", "lower",
        "KL to p(z) of a Gaussian with the moments of each latent dimension under q(z); a bound from below of "
        "KL(q(z), p(z))."),
    "information_bound_nats": Metric("information bound", "nats", ".4g", "",
        "Rate - aggregate KL: an upper bound of the mutual information of images and latents."),
}
# fmt: on


def describe(name: str) -> Metric:
    """The metric's entry; of a name that is not in the catalogue, one that knows no more than the name."""
    return METRICS.get(name) or Metric(name, "", ".4g", "", "")


def in_order(values: Mapping[str, float]) -> dict[str, float]:
    """Metrics in the order of the catalogue, then those that it does not have."""
    return {name: values[name] for name in [*METRICS, *values] if name in values}


def heading(name: str) -> str:
    """A metric's label with its unit and an arrow towards what is better: "PSNR, dB ↑"."""
    metric = describe(name)
    return ", ".join(filter(None, (metric.label, metric.unit))) + ARROWS[metric.better]


def format_metric(name: str, value: float, spread: float | None = None) -> str:
    """A metric's value as it stands in tables; "12.3 ± 0.4" with a spread."""
    form = describe(name).form
    if spread is None:
        return format_number(value, form)
    return f"{format_number(value, form)} ± {format_number(spread, '.2g' if form.endswith('g') else form)}"


def format_number(value: float, form: str = ".4g") -> str:
    """A number in a form of `format`, but large ones with all whole digits: 12345.6 in the form .4g is 12346."""
    large = form.endswith("g") and 10 ** int(form[1:-1]) <= abs(value) < math.inf
    return format(value, ".0f" if large else form)
