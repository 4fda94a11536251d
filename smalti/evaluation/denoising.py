"""How well a model restores noisy images, beside classical filters; all on the same images with the same noise."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smalti.data.batches import some_images
from smalti.data.config import Data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.evaluation.metrics import ssim
from smalti.images.fidelity import mse, psnr_db
from smalti.images.noise import corrupt_each
from smalti.images.preprocessing import CURVES, Corruption
from smalti.models.autoencoder import Autoencoder

MOST_IMAGES, FEWEST_IMAGES, PIXELS = 400, 16, 1 << 21  # the filters are slow: evenly spread images of the split
TUNED_ON = 32  # images of another split, for the filters' settings
TONES = 64  # points of a tone curve
SEED, TUNING_SEED = 0, 1
INSTALL = "pip install 'smalti[filters]'"
Settings = Mapping[str, Any]


class Filter(NamedTuple):
    """A classical filter with the settings of which the best is taken."""

    apply: Callable[..., np.ndarray]  # of an image (H, W, C), the deviation of its noise, and one of the settings
    settings: tuple[Settings, ...]


class Tuned(NamedTuple):
    """A filter for one noise."""

    apply: Callable[..., np.ndarray]
    deviation: float  # of the noise
    settings: Settings
    tone: tuple[np.ndarray, np.ndarray] | None = None  # from the filter's values to those of clean images

    def __call__(self, noisy: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) restored, in [0, 1]."""
        arrays = noisy.permute(0, 2, 3, 1).double().numpy()
        made = np.stack([self.apply(image, self.deviation, **self.settings) for image in arrays])
        made = made.reshape(arrays.shape).clip(0, 1)  # some filters drop an axis of 1
        made = made if self.tone is None else np.interp(made, *self.tone)
        return torch.from_numpy(made).permute(0, 3, 1, 2).float()


def denoising(
    model: Autoencoder, data: Data, split: Split, corruption: Corruption, *, progress: bool = False
) -> dict[str, Any]:
    """PSNR and SSIM of noisy and of restored images over levels of a noise, and of the best of classical filters.

    All are means over the same evenly spread images of the split, at most 400, fewer when they are large. A filter's
    settings are those with the highest mean PSNR at the same level on images of the validation split (of the training
    split, where validation is what is measured); they may depend on the deviation of the noise, which is measured
    there, as is the tone curve that every filter is followed by, from its values to the mean clean ones: noise that was
    clamped darkens white and lightens black, which no filter of these knows about. Filters whose packages are not
    installed are left out. The noise is always the same.

    Args:
        model: in any mode, trained on this noise or not.
        data: as for `smalti.open_data`.
        split: what is measured.
        corruption: the kind of noise; its levels are not used.
        progress: show a bar on stderr.

    Returns:
        noise, noise_patch, trained_noise, num_images, tuned_on (a split), left_out (filters, with the remedy) and rows:
        level, noisy (not at level 0), restored, a key for each filter with its settings and its PSNR without the tone
        curve, best_filter, and ahead_db, by which restored is ahead of it. The model's restored images at level 0 are
        plain reconstructions.
    """
    preprocessing = model.config.preprocessing
    count = max(FEWEST_IMAGES, min(MOST_IMAGES, PIXELS // math.prod(preprocessing.size)))
    images = some_images(data, split, preprocessing, count)
    others, tuned_on = _other_images(model, data, split)
    filters, left_out = available_filters(preprocessing.channels)
    rows = []
    for level in tqdm(CURVES[corruption.noise], "denoising", disable=not progress, leave=False):
        noise = corruption.at(level)
        noisy = corrupt_each(images, noise, SEED)
        row: dict[str, Any] = {"level": level}
        if level:
            row["noisy"] = quality(images, torch.stack(noisy))
        row["restored"] = quality(images, torch.stack(model.reconstruct_many(noisy)).cpu())
        if level and filters:
            others_noisy = torch.stack(corrupt_each(others, noise, TUNING_SEED))
            for name, each in filters.items():
                row[name] = measured(tuned(each, others, others_noisy), images, torch.stack(noisy))
            row["best_filter"] = max(filters, key=lambda name: row[name]["psnr_db"])
            row["ahead_db"] = row["restored"]["psnr_db"] - row[row["best_filter"]]["psnr_db"]
        rows.append(row)
    about = {"noise": corruption.noise, "noise_patch": corruption.noise_patch}
    about["trained_noise"] = str(model.config.corruption)
    return {**about, "num_images": len(images), "tuned_on": tuned_on, "left_out": left_out, "rows": rows}


def quality(images: Tensor, restored: Tensor) -> dict[str, float]:
    """Mean PSNR in dB, and mean SSIM where it can be measured, of restored images (B, C, H, W)."""
    found = {"psnr_db": psnr_db(mse(images, restored).clamp(min=1e-10)), "ssim": ssim(images, restored)}
    return {name: value.double().mean().item() for name, value in found.items() if value is not None}


def measured(best: Tuned, images: Tensor, noisy: Tensor) -> dict[str, Any]:
    """The quality of what a filter restores, its PSNR without the tone curve, and its settings."""
    plain = quality(images, best._replace(tone=None)(noisy))["psnr_db"]
    return {**quality(images, best(noisy)), "without_tone_curve_psnr_db": plain, "settings": dict(best.settings)}


def available_filters(channels: int) -> tuple[dict[str, Filter], dict[str, str]]:
    """The filters that can be run on images with so many channels, and the others with the remedy.

    - median of a window;
    - total_variation: Chambolle's, the weight in units of the noise's deviation;
    - nl_means: non-local means, its cut-off in the same units;
    - wavelet: soft BayesShrink thresholds (Chang et al., 2000), colour in YCbCr, for noise of its deviation times a
      factor.
    """
    names = ("median", "total_variation", "nl_means", "wavelet")
    try:
        from skimage.filters import median
        from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet
    except ImportError:
        return {}, dict.fromkeys(names, INSTALL)

    def by_median(image: np.ndarray, _: float, window: int) -> np.ndarray:
        return median(image, np.ones((window, window, 1)))

    def by_total_variation(image: np.ndarray, deviation: float, weight: float) -> np.ndarray:
        return denoise_tv_chambolle(image, weight * deviation, channel_axis=-1)

    def by_nl_means(image: np.ndarray, deviation: float, cutoff: float, patch: int) -> np.ndarray:
        options = {"patch_size": patch, "patch_distance": 7, "fast_mode": True, "channel_axis": -1}
        return denoise_nl_means(image, h=cutoff * deviation, sigma=deviation, **options)

    def by_wavelet(image: np.ndarray, deviation: float, factor: float, wavelet: str) -> np.ndarray:
        options = {"convert2ycbcr": channels == 3, "rescale_sigma": True, "channel_axis": -1}
        return denoise_wavelet(image, sigma=factor * deviation, wavelet=wavelet, method="BayesShrink", **options)

    filters = {
        "median": Filter(by_median, combinations(window=(3, 5))),
        "total_variation": Filter(by_total_variation, combinations(weight=(0.4, 0.7, 1.0, 1.5))),
        "nl_means": Filter(by_nl_means, combinations(cutoff=(0.25, 0.4, 0.6, 0.8, 1.1), patch=(3, 5))),
    }
    try:
        import pywt as pywt  # scikit-image needs it for wavelets only
    except ImportError:
        return filters, {"wavelet": INSTALL}
    return filters | {"wavelet": Filter(by_wavelet, combinations(factor=(0.7, 1.0, 1.4), wavelet=("db1", "db2")))}, {}


def combinations(**values: tuple[Any, ...]) -> tuple[Settings, ...]:
    """All combinations of the values of settings."""
    made: list[dict[str, Any]] = [{}]
    for name, options in values.items():
        made = [{**setting, name: value} for setting in made for value in options]
    return tuple(made)


def tuned(each: Filter, images: Tensor, noisy: Tensor) -> Tuned:
    """A filter as it restores these noisy images (B, C, H, W) with the highest mean PSNR."""
    deviation = (noisy - images).square().mean().sqrt().item()
    found: list[tuple[float, Tuned]] = []
    for one in each.settings:
        plain = Tuned(each.apply, deviation, one)
        toned = plain._replace(tone=tone_curve(plain(noisy), images))
        found.append((quality(images, toned(noisy))["psnr_db"], toned))
    return max(found, key=lambda scored: scored[0])[1]


def tone_curve(filtered: Tensor, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Values that a filter gives, rising, and the mean of the clean images where it gives about that."""
    values, clean = filtered.double().numpy().ravel(), images.double().numpy().ravel()
    bins = np.minimum((values * TONES).astype(int), TONES - 1)
    counts = np.bincount(bins, minlength=TONES)
    sums = (np.bincount(bins, weights=weights, minlength=TONES)[counts > 0] for weights in (values, clean))
    mean_value, mean_clean = (total / counts[counts > 0] for total in sums)
    return mean_value, mean_clean


def _other_images(model: Autoencoder, data: Data, split: Split) -> tuple[Tensor, Split]:
    """Images for the settings of the filters, and the split that they are of."""
    splits: tuple[Split, ...] = ("train",) if split == "validation" else ("validation", "train")
    for other in splits:
        try:
            return some_images(data, other, model.config.preprocessing, TUNED_ON), other
        except SmaltiError as error:
            if other == splits[-1]:
                raise SmaltiError(f"the filters' settings are chosen on another split: {error}") from error
    raise AssertionError
