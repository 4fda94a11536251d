"""Frechet and kernel distances of two sets of images, on a network's features, with the arithmetic of torchmetrics.

Both ask how far two sets are apart, not how far each image is from its pair: what samples can be measured by, too. The
Frechet distance has a bias that falls with the number of images, so that it can be compared at equal numbers only; the
kernel distance has none.
"""

import importlib
import math
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.evaluation.spread import bootstrap_counts, deviation

RESAMPLES = 20
BLOCK = 1000  # images of a kernel matrix; Binkowski et al. take subsets of this size
FEWEST = 2


class Distance(NamedTuple):
    """A distance and its standard deviation over bootstrap resamples of the images."""

    value: float
    spread: float


def frechet_distance(first: Tensor, second: Tensor, *, paired: bool = False) -> Distance:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2) of the means and covariances of features (N, D) and (M, D).

    Heusel et al., arXiv:1706.08500, eq. 6. `paired` resamples image n of both sets together (reconstructions and their
    originals).

    Raises:
        SmaltiError: fewer than two images, or torchmetrics is missing.
    """
    _check(first, second)
    whole = _frechet(first, second)
    resampled = []
    for ours, others in zip(*_resamples(len(first), len(second), paired), strict=True):
        rows = (torch.repeat_interleave(counts.long()) for counts in (ours, others))
        resampled.append(_frechet(first[next(rows)], second[next(rows)]))
    return Distance(max(0.0, whole), deviation(torch.tensor(resampled)))


def _frechet(first: Tensor, second: Tensor) -> float:
    features = nn.Identity()
    features.num_features = first.shape[1]  # pyright: ignore[reportArgumentType]
    metric = _torchmetrics("fid").FrechetInceptionDistance(feature=features).set_dtype(torch.float64)
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    return metric.compute().item()


def kernel_distance(first: Tensor, second: Tensor, *, paired: bool = False) -> Distance:
    """The squared maximum mean discrepancy of features (N, D) and (M, D) with the kernel (f f' / D + 1)^3; unbiased.

    Binkowski et al., arXiv:1801.01401; the mean over blocks of at most 1,000 images. Of `paired` sets (reconstructions
    and their originals) an image and its pair are no two independent ones and are left out (Gretton et al., 2012, eq.
    4): the distance of a set to itself is 0. It can be below 0 within its spread.

    Raises:
        SmaltiError: fewer than two images, or torchmetrics is missing.
    """
    _check(first, second)
    count = math.ceil(max(len(first), len(second)) / BLOCK)
    blocks = list(zip(first.double().chunk(count), second.double().chunk(count), strict=False))
    results = [_discrepancies(ours, others, paired) for ours, others in blocks if min(len(ours), len(others)) >= FEWEST]
    mean = torch.stack(results).mean(0)
    return Distance(mean[0].item(), deviation(mean[1:]))


def _discrepancies(first: Tensor, second: Tensor, paired: bool) -> Tensor:
    """The discrepancy of one block, then those of its resamples, (1 + R,)."""
    poly_kernel = _torchmetrics("kid").poly_kernel
    once = torch.ones(1, len(first)), torch.ones(1, len(second))
    ours, others = (
        torch.cat([one.double(), counts])
        for one, counts in zip(once, _resamples(len(first), len(second), paired), strict=True)
    )
    within = _mean(poly_kernel(first, first), ours, ours, True) + _mean(
        poly_kernel(second, second), others, others, True
    )
    return within - 2 * _mean(poly_kernel(first, second), ours, others, paired)


def _torchmetrics(module: str) -> ModuleType:
    """A module of torchmetrics.image, which imports torch-fidelity and with it torchvision where they are installed."""
    try:
        return importlib.import_module(f"torchmetrics.image.{module}")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        why = " ".join(str(error).split())
        raise SmaltiError(f"the distances need torchmetrics: pip install 'smalti[metrics]'; {why}") from error


def _mean(kernel: Tensor, ours: Tensor, others: Tensor, without_self: bool) -> Tensor:
    """The kernel's mean over pairs, weighted by the counts (R, N) and (R, M); perhaps without image n and image n."""
    total, pairs = ((ours @ kernel) * others).sum(1), ours.sum(1) * others.sum(1)
    if without_self:
        same = ours * others
        total, pairs = total - same @ kernel.diagonal(), pairs - same.sum(1)
    return total / pairs


def _resamples(num: int, num_others: int, paired: bool) -> tuple[Tensor, Tensor]:
    """How often each image occurs in each resample of both sets, (R, N) and (R, M)."""
    return bootstrap_counts(num, RESAMPLES), bootstrap_counts(num_others, RESAMPLES, seed=0 if paired else 1)


def _check(first: Tensor, second: Tensor) -> None:
    if min(len(first), len(second)) < FEWEST:
        raise SmaltiError(f"a distance of sets needs {FEWEST} images of each, not {len(first)} and {len(second)}")
