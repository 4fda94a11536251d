"""How a gradient gets through what has none: estimators for sampled codes and for nearest code vectors.

Every function returns what goes forward, with a backward pass that is the estimator. "sg" is stop-gradient.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.ops import randomness
from smalti.ops.gumbel_noise import standard_gumbel

RAO_SAMPLES = 16  # of the conditional Gumbel noise, for Gumbel-Rao


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, exactly, with the gradient of `soft`: the estimator of Bengio et al., arXiv:1308.3432."""
    if not (torch.is_grad_enabled() and soft.requires_grad):
        return hard.detach()
    return hard.detach() + (soft - soft.detach())


# ------------------------------------------------------------------ sampled codes: logits (N, K) to weights (N, K)


def sample_one_hot(logits: Tensor) -> Tensor:
    """One sample of softmax(logits) for each row, as a one-hot (N, K) without gradient."""
    return one_hot((logits.detach() + standard_gumbel(logits)).argmax(1), logits)


def one_hot(codes: Tensor, logits: Tensor) -> Tensor:
    """Codes (N,) as rows of the identity, of the type of `logits` (N, K)."""
    return F.one_hot(codes, logits.shape[1]).to(logits)


def gumbel_softmax(logits: Tensor, temperature: Tensor) -> Tensor:
    """softmax((logits + Gumbel noise) / temperature), the same forward and backward: arXiv:1611.01144, eq. 2.

    The gradient is that of the relaxed objective, exactly; the bias is the distance between the two objectives.
    """
    return ((logits + standard_gumbel(logits)) / temperature).softmax(1)


def gumbel_straight_through(logits: Tensor, temperature: Tensor) -> Tensor:
    """A one-hot sample forward, the Gumbel-Softmax of the same noise backward: arXiv:1611.01144, section 2.2."""
    noisy = logits + standard_gumbel(logits)
    return straight_through(one_hot(noisy.argmax(1), logits), (noisy / temperature).softmax(1))


def plain_straight_through(logits: Tensor, temperature: Tensor) -> Tensor:
    """A one-hot sample forward, softmax(logits / temperature) backward: first order in the Taylor sense of ReinMax."""
    return straight_through(sample_one_hot(logits), (logits / temperature).softmax(1))


def gumbel_rao(logits: Tensor, temperature: Tensor) -> Tensor:
    """As `gumbel_straight_through`, its backward pass averaged over noise that gives the same sample: arXiv:2010.04838.

    Same mean, less variance. The noise given the sample is made of exponentials E: with Z = sum of exp(logits), the
    perturbed logit of the sampled code d is ln Z - ln E_d, that of another is -ln(E_k / exp(logit_k) + E_d / Z).
    """
    sampled = sample_one_hot(logits)
    fixed = logits.detach()
    log_e = -standard_gumbel(logits.expand(RAO_SAMPLES, *logits.shape))
    log_top = (log_e * sampled).sum(2, keepdim=True) - fixed.logsumexp(1, keepdim=True)
    others = -torch.logaddexp(log_e - fixed, log_top)
    noise = torch.where(sampled.bool(), -log_top, others) - fixed
    soft = ((logits + noise) / temperature).softmax(2).mean(0)
    return straight_through(sampled, soft)


def reinmax(logits: Tensor, temperature: Tensor) -> Tensor:
    """A one-hot sample D forward; backward Heun's method, second order in the Taylor sense: arXiv:2304.08612, alg. 2.

    With p = softmax(logits) and q = (D + softmax(logits / temperature)) / 2 the gradient is that of 2 q' - p / 2,
    q' being a softmax whose value is q.
    """
    sampled = sample_one_hot(logits)
    probabilities = logits.softmax(1)
    middle = (sampled + (logits.detach() / temperature).softmax(1)) / 2
    shifted = (logits - logits.detach() + middle.log()).softmax(1)
    return straight_through(sampled, 2 * shifted - probabilities / 2)


CATEGORICAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gumbel_softmax": gumbel_softmax,
    "gumbel_straight_through": gumbel_straight_through,
    "straight_through": plain_straight_through,
    "gumbel_rao": gumbel_rao,
    "reinmax": reinmax,
    "reinforce": lambda logits, temperature: sample_one_hot(logits),  # the loss has its gradient, see `log_prob`
}


# ------------------------------------------------------------------ nearest code vectors: (N, D) and (N, D) to (N, D)


def rotate(features: Tensor, quantized: Tensor) -> Tensor:
    """The code vectors, backward through the rotation and scaling that takes each feature there: arXiv:2410.06424.

    With unit vectors e, q and r = (e + q) / |e + q| that map is |q| / |e| (I - 2 r r^T + 2 q e^T), held constant.
    """
    length = features.detach().norm(dim=1, keepdim=True).clamp(min=1e-6)
    wanted = quantized.detach().norm(dim=1, keepdim=True).clamp(min=1e-6)
    e, q = features.detach() / length, quantized.detach() / wanted
    r = F.normalize(e + q, dim=1)
    reflected = features - 2 * r * (r * features).sum(1, keepdim=True) + 2 * q * (e * features).sum(1, keepdim=True)
    return straight_through(quantized, wanted / length * reflected)


def substitute_noise(features: Tensor, quantized: Tensor) -> Tensor:
    """The features moved in a random direction as far as their code vectors are: NSVQ, Vali and Baeckstroem 2022.

    The distance carries a gradient to the encoder, and to a codebook learnt by gradient: no other loss is needed.
    """
    direction = F.normalize(randomness.normal(*features.shape, like=features), dim=1)
    return features + _distance(features, quantized) * direction


def diveq(features: Tensor, quantized: Tensor, deviation: float = 0.03) -> Tensor:
    """As `substitute_noise`, but in the direction of the code vectors, a little disturbed: DiVeQ, Vali et al. 2025.

    `deviation` is that of the disturbance, relative to the distance.
    """
    distance = _distance(features, quantized)
    noise = deviation * distance * randomness.normal(*features.shape, like=features) / features.shape[1] ** 0.5
    return features + distance * F.normalize((quantized - features + noise).detach(), dim=1)


def _distance(features: Tensor, quantized: Tensor) -> Tensor:
    return (quantized - features).square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()


NEAREST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "straight_through": lambda features, quantized: straight_through(quantized, features),  # arXiv:1711.00937, eq. 2
    "rotation": rotate,
    "nsvq": substitute_noise,
    "diveq": diveq,
}
