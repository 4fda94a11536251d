"""Encoders and decoders."""

from smalti.configs import Family
from smalti.models.networks.base import Networks, in_own_type
from smalti.models.networks.mlp import MlpNetworks
from smalti.models.networks.residual import ResidualNetworks
from smalti.models.networks.strided import StridedNetworks
from smalti.models.networks.vqgan import VqganNetworks

__all__ = [
    "NETWORKS",
    "MlpNetworks",
    "Networks",
    "ResidualNetworks",
    "StridedNetworks",
    "VqganNetworks",
    "in_own_type",
]

NETWORKS: Family[Networks] = Family(
    "networks", Networks, residual=ResidualNetworks, vqgan=VqganNetworks, strided=StridedNetworks, mlp=MlpNetworks
)
