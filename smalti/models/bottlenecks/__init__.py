"""The part in which AE, VAE, VQ-VAE and dVAE differ; one file a member."""

from smalti.configs import Family
from smalti.models.bottlenecks.base import (
    Bottleneck,
    BottleneckOutput,
    CategoricalPosterior,
    DeterministicQuantizer,
    DiscreteBottleneck,
    GaussianPosterior,
    InWords,
    PosteriorSample,
)
from smalti.models.bottlenecks.binary import BinaryQuantizer
from smalti.models.bottlenecks.categorical import Categorical
from smalti.models.bottlenecks.estimators import straight_through
from smalti.models.bottlenecks.fsq import FSQ
from smalti.models.bottlenecks.gaussian import Gaussian
from smalti.models.bottlenecks.identity import Identity
from smalti.models.bottlenecks.product import ProductQuantizer
from smalti.models.bottlenecks.residual import ResidualQuantizer
from smalti.models.bottlenecks.vector import VectorQuantizer

BOTTLENECKS: Family[Bottleneck] = Family(
    "bottleneck",
    Bottleneck,
    identity=Identity,
    gaussian=Gaussian,
    vector_quantizer=VectorQuantizer,
    residual_quantizer=ResidualQuantizer,
    product_quantizer=ProductQuantizer,
    fsq=FSQ,
    binary_quantizer=BinaryQuantizer,
    categorical=Categorical,
)

__all__ = [
    "BOTTLENECKS",
    "FSQ",
    "BinaryQuantizer",
    "Bottleneck",
    "BottleneckOutput",
    "Categorical",
    "CategoricalPosterior",
    "DeterministicQuantizer",
    "DiscreteBottleneck",
    "Gaussian",
    "GaussianPosterior",
    "Identity",
    "InWords",
    "PosteriorSample",
    "ProductQuantizer",
    "ResidualQuantizer",
    "VectorQuantizer",
    "straight_through",
]
