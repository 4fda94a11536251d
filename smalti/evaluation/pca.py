"""Principal component analysis, the baseline of dimensionality reduction that an autoencoder has to beat."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.images.fidelity import mse, psnr_db
from smalti.shapes import check_shape

PCA_IMAGES = 5000  # that a PCA is fitted on, evenly spread over those that are given
SEED = 0  # of the randomised solver


class PCAReconstructions(NamedTuple):
    """Images from as many numbers as an autoencoder's latents have."""

    images: Tensor  # (B, C, H, W) float32 in [0, 1]
    psnr_db: float  # mean of the images' PSNR
    dims: int
    num_train: int  # images that the components were fitted on


def most_dims(num_train: int, num_values: int) -> int:
    """The most dimensions at which PCA is a baseline: below the rank of the centred training images and of the pixels.

    N centred images span N - 1 dimensions: with as many components each of them is reconstructed exactly, and what an
    unseen image gets is the span of the training set, not a reduction of it.
    """
    return min(num_train - 1, num_values) - 1


def fit_pca(train: np.ndarray, dims: int) -> Any:
    """The first `dims` principal components of rows (N, values), of which at most 5,000 evenly spread ones are used.

    A `PCA` of scikit-learn, and its choice of a solver: of the covariance for small images, randomised with a fixed
    seed for large ones.

    Raises:
        SmaltiError: no scikit-learn, or so many dimensions that nothing is reduced.
    """
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise SmaltiError("PCA needs scikit-learn: pip install 'smalti[probes]'") from error
    rows = train[np.linspace(0, len(train) - 1, min(PCA_IMAGES, len(train))).astype(int)]
    if not 1 <= dims <= (most := most_dims(*rows.shape)):
        whose = f"of {len(rows):,} training images of {rows.shape[1]:,} values"
        raise SmaltiError(f"PCA to {dims:,} dimensions {whose} reduces nothing; at most {most:,}, or more images")
    return PCA(dims, random_state=SEED).fit(rows)


def pca_reconstructions(train_images: Tensor, images: Tensor, dims: int) -> PCAReconstructions:
    """Project images on the principal components of others and back, clamped to [0, 1].

    Args:
        train_images: (N, C, H, W) in [0, 1], to fit on; at most 5,000 of them, evenly spread, are used.
        images: (B, C, H, W) in [0, 1], of the same size.
        dims: of the code, for example the number of an autoencoder's latents, D h w.

    Raises:
        SmaltiError: no scikit-learn, or so many dimensions that nothing is reduced: as many as values in an image, or
            as training images less one.
    """
    _, channels, height, width = images.shape
    check_shape(train_images, "B C H W", "train_images", C=channels, H=height, W=width)
    pca = fit_pca(train_images.flatten(1).cpu().numpy(), dims)
    rows = pca.inverse_transform(pca.transform(images.flatten(1).cpu().numpy()))
    again = torch.from_numpy(rows).float().view(images.shape).clamp(0, 1)
    quality = psnr_db(mse(images.cpu(), again).clamp(min=1e-10)).mean().item()
    return PCAReconstructions(again, quality, dims, min(PCA_IMAGES, len(train_images)))
