"""Bias and variance of gradient estimators, against the exact gradient by enumeration.

For a categorical model with few latent states the exact gradient of E_q[distortion] with respect to the logits is a sum
over all states. Many samples of each estimator are compared with it. The protocol is that of ReinMax
(arXiv:2304.08612), over temperatures.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import CategoricalPosterior
from smalti.models.bottlenecks.estimators import CATEGORICAL
from smalti.models.bottlenecks.grids import unflatten_grid
from smalti.modes import using
from smalti.training.losses import score_function_loss

MAX_STATES = 1 << 14
STATES_AT_ONCE = 1024
TEMPERATURES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)


class GradientError(NamedTuple):
    """Error of one estimator at one temperature; means over images."""

    estimator: str
    temperature: float
    bias: float  # |mean - exact| / |exact|
    deviation: float  # root of the summed variances / |exact|
    cosine: float  # between the mean and the exact gradient
    single_cosine: float  # mean cosine between one sample and the exact gradient


def study(
    model: Autoencoder,
    images: Tensor,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    draws: int = 1024,
    seed: int = 0,
    progress: bool = False,
) -> list[GradientError]:
    """Compare every estimator with the exact gradient of E_q[-log p(x|z)] with respect to the logits.

    The standard error of the bias is about deviation / sqrt(draws). REINFORCE's baseline is the leave-one-out mean over
    the samples of the same image.

    Args:
        model: with a `CategoricalPosterior` as its bottleneck and at most 16,384 latent states.
        images: (B, C, H, W) in [0, 1].
        temperatures: of the relaxations.
        draws: samples of each estimator, for each image.
        seed: of the samples.
        progress: show a bar on stderr.

    Raises:
        SmaltiError: another bottleneck, or too many states.
    """
    bottleneck = model.bottleneck
    if not isinstance(bottleneck, CategoricalPosterior):
        raise SmaltiError(f"estimators need a categorical bottleneck, not {model.config.bottleneck['kind']!r}")
    with using(model) as still, torch.random.fork_rng():
        torch.manual_seed(seed)
        cases = []
        for image in images.split(1):
            features = still.features(image)
            logits = bottleneck.logits(features)
            cases.append((image, features, logits, exact_gradient(still, image, features, logits)))
        pairs = list(itertools.product(CATEGORICAL, temperatures))
        bar = tqdm(pairs, desc="estimators", disable=not progress, leave=False)
        return [_one(still, cases, name, temperature, draws) for name, temperature in bar]


def exact_gradient(model: Autoencoder, image: Tensor, features: Tensor, logits: Tensor) -> Tensor:
    """The gradient (T, K) of one image's expected distortion with respect to its logits: a sum over all K^T codes."""
    count, size = logits.shape
    if size**count > MAX_STATES:
        what = f"{size}^{count} latent states are too many to enumerate (at most {MAX_STATES})"
        raise SmaltiError(f"{what}; use fewer variables or classes")
    states = torch.cartesian_prod(*[torch.arange(size)] * count).view(-1, count)  # (S, T)
    parts = (F.one_hot(part, size).float() for part in states.split(STATES_AT_ONCE))
    distortions = torch.cat([_distortion(model, image, features, part) for part in parts])
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        log_q = leaf.log_softmax(1).double()
        log_joint = log_q[torch.arange(count), states].sum(1)
        return torch.autograd.grad((log_joint.exp() * distortions.double()).sum(), leaf)[0]


def _distortion(model: Autoencoder, image: Tensor, features: Tensor, weights: Tensor) -> Tensor:
    """-log p(x|z) in nats (n,) of one image for n assignments of weights (n, T, K)."""
    assert isinstance(model.bottleneck, CategoricalPosterior)
    vectors = (weights @ model.bottleneck.vectors).flatten(0, 1)
    latents = unflatten_grid(vectors, features.expand(len(weights), -1, -1, -1))
    return model.likelihood.nll(model.decoder(latents), image.expand(len(weights), -1, -1, -1))


def estimated_gradients(
    model: Autoencoder, image: Tensor, features: Tensor, logits: Tensor, estimator: str, temperature: float, draws: int
) -> Tensor:
    """`draws` independent estimates (draws, T, K) of the gradient for one image."""
    with torch.enable_grad():
        leaf = logits.detach().repeat(draws, 1, 1).requires_grad_()
        flat = leaf.flatten(0, 1)
        weights = CATEGORICAL[estimator](flat, flat.new_tensor(temperature))
        distortion = _distortion(model, image, features, weights.view_as(leaf))
        if estimator == "reinforce":
            log_prob = (weights * flat.log_softmax(1)).view(draws, -1).sum(1)
            return draws * torch.autograd.grad(score_function_loss(distortion, log_prob), leaf)[0]
        return torch.autograd.grad(distortion.sum(), leaf)[0]


def _one(model: Autoencoder, cases: list[Any], estimator: str, temperature: float, draws: int) -> GradientError:
    rows = []
    for image, features, logits, exact in cases:
        estimates = estimated_gradients(model, image, features, logits, estimator, temperature, draws).flatten(1)
        exact, mean = exact.flatten(), estimates.mean(0)
        length = exact.norm().clamp(min=1e-12)
        errors = (mean - exact).norm() / length, estimates.var(0).sum().sqrt() / length
        single = F.cosine_similarity(estimates, exact[None], dim=1).mean()
        rows.append([*errors, F.cosine_similarity(mean, exact, dim=0), single])
    return GradientError(estimator, temperature, *torch.tensor(rows).mean(0).tolist())
