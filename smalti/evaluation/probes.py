"""Linear and nearest-neighbour probes: what a simple classifier can tell from latents and codes, pixels and PCA."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smalti.data.batches import BINARY_SEED, Pixels
from smalti.data.conditions import labels_of
from smalti.data.config import Data
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.evaluation.pca import fit_pca, most_dims
from smalti.images.pixels import model_images
from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck

PROBE_IMAGES = 10_000
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # C of the linear probe: the inverse weight of its squared norm
NEIGHBOURS = 5
MOST_STEPS = 5000  # of the solver; MNIST's pixels take 160
MOST_BYTES = 2 << 30  # of one representation of the training images
SCALING = "minus the training images' mean, divided by their one standard deviation over all dimensions"


class Labelled(NamedTuple):
    """Images of one split with their labels."""

    images: Tensor  # (N, C, H, W), as the model sees them
    labels: np.ndarray  # (N,) texts


Parts = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows (N, dims) of train, validation, test


def probe(
    model: Autoencoder, data: Data, split: Split, label: str, *, num_images: int = PROBE_IMAGES
) -> dict[str, Any]:
    """How well two simple classifiers tell the labels of images from what the model makes of them.

    Both are trained on at most `num_images` evenly spread images of the training split. The linear probe is a
    multinomial logistic regression with a squared-norm penalty, run until it converges, whose strength is the one of
    `STRENGTHS` with the best accuracy on the validation split (at most `num_images` too, evenly spread); the other is
    the vote of the 5 nearest training images by Euclidean distance. Every representation is first centred and divided
    by one number, so that no dimension without variance is blown up and distances keep their proportions.

    The representations: pixels; PCA of as many dimensions as the latents (fitted on at most 5,000 training images);
    latents, of a discrete system the vectors of the codes; latents averaged over the grid; of a discrete system the
    histogram of an image's codes, one for each codebook.

    Args:
        model: in any mode.
        data: as for `smalti.open_data`, with labels and the splits train and validation.
        split: what to test on.
        label: the kind of label: "class", "group", ...
        num_images: of the training and of the validation split.

    Returns:
        label, the numbers of images, majority_accuracy (always the commonest training label), k, the scaling, "rows":
        for each representation its dims, linear_accuracy, knn_accuracy, the standard errors of both over the test
        images and the strength C; and "left_out": why a representation has no row.

    Raises:
        SmaltiError: no scikit-learn, no such labels, a split that the probes learn from, images too large, or fewer
            than two labels.
    """
    if split != "test":
        raise SmaltiError(f"a probe learns from train and validation; with it --split is test, not {split}")
    _need_sklearn()
    train, validation, test = _parts(model.config.preprocessing, data, label, num_images)
    left_out: dict[str, str] = {}
    rows = []
    for name, parts in _representations(model, (train, validation, test), left_out):
        scaled = _scaled(parts)
        linear, strength = linear_probe(scaled, (train.labels, validation.labels, test.labels))
        nearest = knn_probe(scaled[0], train.labels, scaled[2], test.labels)
        row = {"representation": name, "dims": parts[0].shape[1]}
        for kind, accuracy in (("linear", linear), ("knn", nearest)):
            row[f"{kind}_accuracy"] = accuracy
            row[f"{kind}_standard_error"] = math.sqrt(accuracy * (1 - accuracy) / len(test.labels))
        rows.append({**row, "C": strength})
    names, counts = np.unique(train.labels, return_counts=True)
    return {
        "label": label,
        "num_labels": len(names),
        "num_train": len(train.labels),
        "num_validation": len(validation.labels),
        "num_test": len(test.labels),
        "k": NEIGHBOURS,
        "scaling": SCALING,
        "majority_accuracy": float((test.labels == names[counts.argmax()]).mean()),
        "rows": rows,
        "left_out": left_out,
    }


def _parts(preprocessing: Preprocessing, data: Data, label: str, num_images: int) -> tuple[Labelled, ...]:
    """The images and labels of train, validation and test."""
    train = _labelled(preprocessing, data, "train", label, num_images)
    if len(set(train.labels)) < 2:
        raise SmaltiError(f"all training images of {data} have the {label} {train.labels[0]!r}; nothing to tell apart")
    return (
        train,
        _labelled(preprocessing, data, "validation", label, num_images),
        _labelled(preprocessing, data, "test", label, None),
    )


def _labelled(preprocessing: Preprocessing, data: Data, split: Split, kind: str, count: int | None) -> Labelled:
    """At most `count` readable images of a split, evenly spread, with their labels; None takes all."""
    source = open_data(data, split)
    labels = labels_of(source, kind)
    places = np.linspace(0, len(source) - 1, min(count or len(source), len(source))).astype(int)
    size = len(places) * preprocessing.num_dims * 4
    if size > MOST_BYTES:
        needs = f"the pixels of {len(places):,} images of the {split} split take {size / 2**30:.1f} GiB"
        raise SmaltiError(f"{needs}, more than the {MOST_BYTES >> 30} of a probe; give fewer by --probe_images")
    chosen = replace(source, indices=[source.indices[place] for place in places])
    found = list(Pixels(chosen, preprocessing, memory_bytes=0).readable())
    if not found:
        raise SmaltiError(f"none of the {len(places)} images of the {split} split of {data} can be read")
    pixels = torch.from_numpy(np.stack([image for _, image in found]))
    images = model_images(pixels, preprocessing, torch.Generator().manual_seed(BINARY_SEED))
    return Labelled(images, np.array([labels[places[index]] for index, _ in found]))


def _representations(
    model: Autoencoder, parts: Sequence[Labelled], left_out: dict[str, str]
) -> Iterator[tuple[str, Parts]]:
    """Name and rows of each representation of train, validation and test; why one is missing goes into `left_out`."""
    pixels = [part.images.flatten(1).numpy() for part in parts]
    latents = [model.encode_latents(part.images).cpu() for part in parts]
    (_, num_values), dims = pixels[0].shape, latents[0][0].numel()
    yield "pixels", _three(pixels)
    if dims > (most := most_dims(len(pixels[0]), num_values)):
        left_out["pca"] = f"to {dims:,} dimensions it reduces nothing: at most {most:,} with so many images and pixels"
    else:
        pca = fit_pca(pixels[0], dims)
        yield "pca", _three([pca.transform(rows) for rows in pixels])
    yield "latents", _three([own.flatten(1).numpy() for own in latents])
    if latents[0][0, 0].numel() > 1:
        yield "pooled latents", _three([own.mean((2, 3)).numpy() for own in latents])
    else:
        left_out["pooled latents"] = "the grid has one position"
    bottleneck = model.bottleneck
    if not isinstance(bottleneck, DiscreteBottleneck):
        return
    size = 4 * len(pixels[0]) * bottleneck.num_codebooks * bottleneck.codebook_size
    if size > MOST_BYTES:
        left_out["code histogram"] = f"it takes {size / 2**30:.1f} GiB"
    else:
        codes = [model.encode(part.images).cpu() for part in parts]
        yield "code histogram", _three([code_histograms(bottleneck, own).numpy() for own in codes])


def _three(parts: list[np.ndarray]) -> Parts:
    train, validation, test = parts
    return train, validation, test


def code_histograms(bottleneck: DiscreteBottleneck, codes: Tensor) -> Tensor:
    """How often each code occurs in each image of codes (B, *grid): float32 (B, q * K), codebook after codebook."""
    each = codes.view(len(codes), bottleneck.num_codebooks, -1)
    counts = torch.zeros(*each.shape[:2], bottleneck.codebook_size)
    return counts.scatter_add_(2, each, torch.ones(each.shape)).flatten(1)


def _scaled(parts: Parts) -> Parts:
    """The rows as `SCALING` says."""
    mean, deviation = parts[0].mean(0), math.sqrt(float(parts[0].var(0).mean())) or 1.0
    return _three([(rows - mean) / deviation for rows in parts])


def linear_probe(parts: Parts, labels: Parts) -> tuple[float, float]:
    """Accuracy on the test rows of a multinomial logistic regression, and its C, chosen on the validation rows.

    Args:
        parts: rows (N, dims) of train, validation, test.
        labels: of each, (N,).
    """
    from sklearn.linear_model import LogisticRegression

    train, validation, test = (rows.astype(np.float64) for rows in parts)  # in float32 the line search may end early
    found = []
    classifier = LogisticRegression(max_iter=MOST_STEPS, warm_start=True)
    for strength in STRENGTHS:
        classifier.set_params(C=strength).fit(train, labels[0])
        chosen_by, accuracy = classifier.score(validation, labels[1]), classifier.score(test, labels[2])
        found.append((chosen_by, -strength, accuracy))
    _, strength, accuracy = max(found)  # of equals the strongest penalty
    return float(accuracy), -strength


def knn_probe(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy on the test rows (N, dims) of the vote of the 5 nearest training rows (fewer if there are fewer)."""
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(min(NEIGHBOURS, len(train)), algorithm="brute")
    return float(classifier.fit(train, train_labels).score(test, test_labels))


def _need_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise SmaltiError("probes need scikit-learn: pip install 'smalti[probes]'") from error
