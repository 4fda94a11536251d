"""smalti: images to discrete codes and back; AE, VAE, VQ-VAE and dVAE on one backbone.

The public names are loaded on first use, so that `import smalti` and `smalti --help` do not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.data.sources import open_data
    from smalti.errors import SmaltiError
    from smalti.generate.generator import Generator
    from smalti.images.reading import to_pil
    from smalti.models.autoencoder import Autoencoder
    from smalti.models.bottlenecks import (
        FSQ,
        BinaryQuantizer,
        Categorical,
        ProductQuantizer,
        ResidualQuantizer,
        VectorQuantizer,
    )
    from smalti.models.config import AutoencoderConfig

__version__ = "0.1.0"

_HOMES = {
    "Autoencoder": "smalti.models.autoencoder",
    "AutoencoderConfig": "smalti.models.config",
    "BinaryQuantizer": "smalti.models.bottlenecks",
    "Categorical": "smalti.models.bottlenecks",
    "FSQ": "smalti.models.bottlenecks",
    "Generator": "smalti.generate.generator",
    "ProductQuantizer": "smalti.models.bottlenecks",
    "ResidualQuantizer": "smalti.models.bottlenecks",
    "SmaltiError": "smalti.errors",
    "VectorQuantizer": "smalti.models.bottlenecks",
    "open_data": "smalti.data.sources",
    "to_pil": "smalti.images.reading",
}

__all__ = [
    "FSQ",
    "Autoencoder",
    "AutoencoderConfig",
    "BinaryQuantizer",
    "Categorical",
    "Generator",
    "ProductQuantizer",
    "ResidualQuantizer",
    "SmaltiError",
    "VectorQuantizer",
    "open_data",
    "to_pil",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smalti' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
