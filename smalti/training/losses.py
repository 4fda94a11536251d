"""The loss of all autoencoders.

    total = (distortion + beta * kl) / num_dims
            + commitment_weight * commitment + codebook_weight * codebook + entropy_weight * entropy
            + the sum of penalty_weights[name] * penalty over the others that a bottleneck has

`distortion` = -log p(x|z) and `kl` are nats per image: sums over an image, means over the batch. num_dims = C*H*W, so
the first part is nats per dimension and DALL-E's beta = 6.6 is 6.6 here (they divide by 256*256*3 too). The penalties
are means over B, h, w (and D). Nothing depends on the batch size.

REINFORCE adds the score-function gradient: (distortion - baseline) times the gradient of ln q(sample). An image's
baseline is the mean distortion of the other images of the batch (leave-one-out), which keeps the gradient unbiased.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from smalti import processes
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.training.experiment import LossConfig


class Loss(NamedTuple):
    """The loss and its terms for the log."""

    total: Tensor  # scalar
    terms: dict[str, Tensor]  # scalars, detached
    codes: Tensor | None  # (B, *grid), for the usage of the codebook
    parameters: Tensor | None = None  # (B, P, H, W) of the likelihood, for losses of the reconstruction


def autoencoder_loss(
    model: Autoencoder, images: Tensor, config: LossConfig, beta: float, seen: Tensor | None = None
) -> Loss:
    """The loss of one batch, nats per dimension plus weighted penalties.

    Args:
        model: in training mode.
        images: (B, C, H, W) in [0, 1].
        config: the weights of the penalties.
        beta: weight of the KL now.
        seen: (B, C, H, W), what the encoder gets in place of the images, for a model that restores them from noise;
            the distortion is that of the images. By default the images themselves.
    """
    parameters, bottleneck = model(images if seen is None else seen)
    per_image = model.likelihood.nll(parameters, images)
    distortion = per_image.mean()
    kl = bottleneck.kl.mean()
    weights = {
        "commitment": config.commitment_weight,
        "codebook": config.codebook_weight,
        "entropy": config.entropy_weight,
        **config.penalty_weights,
    }

    total = (distortion + beta * kl) / images[0].numel()
    for name, penalty in bottleneck.penalties.items():
        if name not in weights:
            raise SmaltiError(f"the penalty {name!r} has no weight; give it one in LossConfig(penalty_weights=...)")
        total = total + weights[name] * penalty
    if bottleneck.log_prob is not None:
        score = score_function_loss(per_image, bottleneck.log_prob) / images[0].numel()
        total = total + score - score.detach()

    parts = {"distortion_nats": distortion, "kl_nats": kl, **bottleneck.penalties, "loss": total}
    terms = {name: part.detach() for name, part in parts.items()}
    return Loss(total=total, terms=terms, codes=bottleneck.codes, parameters=parameters)


def score_function_loss(distortion: Tensor, log_prob: Tensor) -> Tensor:
    """A scalar whose gradient is REINFORCE's, from distortions (B,) and log-probabilities ln q (B,) of the samples.

    Williams 1992; the baseline is that of Mnih and Rezende, arXiv:1602.06725, across the batch.
    """
    total = processes.sum_over(torch.stack([distortion.detach().sum(), distortion.new_tensor(len(distortion))]))
    baseline = (total[0] - distortion) / (total[1] - 1).clamp(min=1)
    return ((distortion - baseline).detach() * log_prob).mean()


def passed_once(term: Tensor, images: Tensor) -> Tensor:
    """A term of a loss with its value and its gradient at `images`, for which the networks between are passed now.

    Gradients of it reach what made the images and nothing else. That is what the adaptive weight of a discriminator
    takes twice; the networks between, which cost more than the decoder, are passed once, and their features are freed.

    Args:
        term: a scalar.
        images: with gradient, of any shape; without gradients the term comes back as it is.
    """
    if not torch.is_grad_enabled():
        return term
    pull = torch.autograd.grad(term, images, retain_graph=True)[0]
    linear = (pull * images).sum()
    return linear - linear.detach() + term.detach()
