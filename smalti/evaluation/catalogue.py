"""What each number of an evaluation is: its label, unit, form, direction and meaning, said once for every table."""

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """How a metric is shown and read."""

    label: str
    unit: str  # "" has none
    form: str  # of `format`
    better: Literal["higher", "lower", ""]  # "" is neither: to be set beside something else
    meaning: str  # one sentence


METRICS: dict[str, Metric] = {  # in the order of tables
    "psnr_db": Metric("PSNR", "dB", ".2f", "higher", "Mean of the images' PSNR; blind to where the error is."),
    "psnr_of_mean_mse_db": Metric("PSNR of the mean error", "dB", ".2f", "higher", "PSNR of the mean squared error."),
    "ssim": Metric("SSIM", "", ".3f", "higher", "Structural similarity, 11-pixel Gaussian window."),
    "ms_ssim": Metric("MS-SSIM", "", ".3f", "higher", "Structural similarity over several scales."),
    "mse": Metric("MSE", "", ".3g", "lower", "Mean squared error of values in [0, 1]."),
    "usage": Metric("codebook usage", "", ".1%", "higher", "Share of the K codes that occur in the split."),
    "perplexity": Metric("perplexity", "codes", ".0f", "higher", "exp(entropy) of the histogram of all codes."),
    "distortion_nats": Metric("distortion", "nats", ".4g", "lower", "-log p(x|z) of an image, deterministic latents."),
    "distortion_bits": Metric("distortion", "bits", ".4g", "lower", "The same for its 8-bit pixels."),
    "relaxed_distortion_nats": Metric("relaxed distortion", "nats", ".4g", "lower", "In training mode, with noise."),
    "relaxed_distortion_bits": Metric("relaxed distortion", "bits", ".4g", "lower", "The same for its 8-bit pixels."),
    "sampled_distortion_nats": Metric("sampled distortion", "nats", ".4g", "lower", "For one sample z ~ q(z|x)."),
    "rate_nats": Metric("rate", "nats", ".4g", "", "KL(q(z|x) || p(z)) of an image."),
    "elbo_nats": Metric("ELBO", "nats", ".4g", "higher", "A bound of log p(x): minus sampled distortion and rate."),
    "nll_nats": Metric("-log p(x)", "nats", ".4g", "lower", "Of an image; by importance sampling, a bound."),
    "bits": Metric("bits", "", ".4g", "lower", "-log2 p(codes) of an image."),
    "bits_per_code": Metric("bits per code", "", ".2f", "lower", "-log2 p(codes) per code."),
    "bits_per_dim": Metric("bits per dim", "", ".3f", "lower", "Code length of the 8-bit pixels per value, a bound."),
    "histogram_bits_per_code": Metric("histogram's", "bits", ".2f", "", "Bits per code without any context."),
    "uniform_bits_per_code": Metric("fixed length", "bits", ".2f", "", "log2 K."),
    "share_of_histogram": Metric("of the histogram's", "", ".0%", "lower", "Bits per code, of the histogram's."),
    "nominal_bits_per_pixel": Metric("bits per pixel", "", ".3f", "", "The codes at fixed length, T log2 K / (H W)."),
    "linear_accuracy": Metric("linear probe", "", ".1%", "higher", "Accuracy of a logistic regression, see probes."),
    "knn_accuracy": Metric(
        "nearest neighbours", "", ".1%", "higher", "Accuracy of the 5 nearest training images' vote."
    ),
    "majority_accuracy": Metric("majority", "", ".1%", "", "Accuracy of always saying the commonest training label."),
    "bf16_equal_codes": Metric("bf16 code agreement", "", ".1%", "higher", "Codes that a bf16 encoder gives too."),
}


def format_metric(name: str, value: float) -> str:
    """A metric's value as it stands in tables; four significant digits of a name that is not in the catalogue."""
    return format(value, METRICS[name].form if name in METRICS else ".4g")
