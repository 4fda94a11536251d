"""The bottlenecks under the laws: every member of the family, in the forms that differ."""

import torch

from conftest import own_members
from smalti.models.bottlenecks import BOTTLENECKS, DiscreteBottleneck
from smalti.models.bottlenecks.estimators import CATEGORICAL

K, D, SIDE = 24, 6, 4

CODEBOOK = {"codebook_size": K, "code_dim": D}
BY_GRADIENT = {"kind": "vector_quantizer", "learning": "gradient", **CODEBOOK}
MEMBERS = {
    "identity": {"kind": "identity", "channels": D},
    "gaussian": {"kind": "gaussian", "channels": D},
    "vq ema": {"kind": "vector_quantizer", **CODEBOOK},
    "vq gradient": BY_GRADIENT,
    "vq direction": {"kind": "vector_quantizer", "compare": "direction", **CODEBOOK},
    "vq product": {"kind": "vector_quantizer", "compare": "product", **CODEBOOK},
    "vq random start": {"kind": "vector_quantizer", "start": "random", **CODEBOOK},
    "vq simvq": {"kind": "vector_quantizer", "learning": "simvq", **CODEBOOK},
    "vq rotation": {"kind": "vector_quantizer", "estimator": "rotation", **CODEBOOK},
    "vq nsvq": {"estimator": "nsvq", **BY_GRADIENT},
    "vq diveq": {"estimator": "diveq", **BY_GRADIENT},
    "residual": {"kind": "residual_quantizer", "num_codebooks": 3, **CODEBOOK},
    "residual dropout": {"kind": "residual_quantizer", "num_codebooks": 2, "drop": 0.5, **CODEBOOK},
    "product": {"kind": "product_quantizer", "num_codebooks": 2, **CODEBOOK},
    "fsq": {"kind": "fsq", "levels": (4, 3, 4, 3)},
    "fsq odd": {"kind": "fsq", "levels": (5, 5, 7, 3)},
    "fsq listing": {"kind": "fsq", "variant": "listing", "levels": (4, 3, 2, 3)},
    "fsq symmetric": {"kind": "fsq", "variant": "symmetric", "levels": (2, 2, 3, 2)},
    "lfq": {"kind": "binary_quantizer", "bits": 9},
    "bsq": {"kind": "binary_quantizer", "bits": 5, "spherical": True},
    "dvae distance": {"kind": "categorical", **CODEBOOK},
    "dvae convolution": {"kind": "categorical", "logits": "convolution", "in_channels": 10, **CODEBOOK},
    "dvae one-hot": {"kind": "categorical", "logits": "features", "codebook_size": K, "code_dim": 0},
    "dvae learned prior": {"kind": "categorical", "prior_grid": (SIDE, SIDE), **CODEBOOK},
    **{f"dvae {name}": {"kind": "categorical", "estimator": name, **CODEBOOK} for name in CATEGORICAL},
}
MEMBERS |= {kind: {"kind": kind, **options} for kind, options in own_members(BOTTLENECKS).items()}
DISCRETE = [name for name, spec in MEMBERS.items() if issubclass(BOTTLENECKS[spec["kind"]], DiscreteBottleneck)]


def make(name, trained=True):
    spec = dict(MEMBERS[name])
    torch.manual_seed(1)
    bottleneck = BOTTLENECKS[spec.pop("kind")](**spec)
    if trained:  # a few updates, so that codebooks are initialised and moving
        for step in range(3):
            bottleneck.anneal(step, 3)
            bottleneck(features(bottleneck, 8, seed=step))
            bottleneck.update()
    return bottleneck


def features(bottleneck, batch, seed=0):
    return torch.randn(batch, bottleneck.in_channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
