"""The part in which AE, VAE, VQ-VAE and dVAE differ; one file a member."""

from smalti.models.bottlenecks.base import (
    Bottleneck,
    BottleneckOutput,
    DiscreteBottleneck,
    PosteriorSample,
    straight_through,
)
from smalti.models.bottlenecks.gaussian import Gaussian
from smalti.models.bottlenecks.gumbel import GumbelSoftmax
from smalti.models.bottlenecks.identity import Identity
from smalti.models.bottlenecks.vector import VectorQuantizer

BOTTLENECKS: dict[str, type[Bottleneck]] = {
    "identity": Identity,
    "gaussian": Gaussian,
    "vector_quantizer": VectorQuantizer,
    "gumbel_softmax": GumbelSoftmax,
}

__all__ = [
    "BOTTLENECKS",
    "Bottleneck",
    "BottleneckOutput",
    "DiscreteBottleneck",
    "Gaussian",
    "GumbelSoftmax",
    "Identity",
    "PosteriorSample",
    "VectorQuantizer",
    "straight_through",
]
