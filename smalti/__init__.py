"""smalti: images to discrete codes and back; AE, VAE, VQ-VAE and dVAE on one backbone.

The verbs of the command line are functions of the same name here: `smalti.train(dvae(), "runs/dvae", steps=100)`,
`smalti.evaluate("runs/dvae")`, ... The public names are loaded on first use, so that `import smalti` and
`smalti --help` do not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.apps.compare import compare as compare
    from smalti.apps.compress import compress as compress
    from smalti.apps.convert import convert as convert
    from smalti.apps.decode import decode as decode
    from smalti.apps.decompress import decompress as decompress
    from smalti.apps.demo import demo as demo
    from smalti.apps.encode import encode as encode
    from smalti.apps.estimators import estimators as estimators
    from smalti.apps.evaluate import evaluate as evaluate
    from smalti.apps.export import export as export
    from smalti.apps.info import info as info
    from smalti.apps.interpolate import interpolate as interpolate
    from smalti.apps.reconstruct import reconstruct as reconstruct
    from smalti.apps.report import report as report
    from smalti.apps.sample import sample as sample
    from smalti.apps.serve import serve as serve
    from smalti.apps.tokenize import tokenize as tokenize
    from smalti.apps.train import train as train
    from smalti.codec import Codec as Codec
    from smalti.data.config import DataConfig as DataConfig
    from smalti.data.sources import open_data as open_data
    from smalti.errors import SmaltiError as SmaltiError
    from smalti.generate.generator import Generator as Generator
    from smalti.images.reading import to_pil as to_pil
    from smalti.models.autoencoder import Autoencoder as Autoencoder
    from smalti.models.bottlenecks import FSQ as FSQ
    from smalti.models.bottlenecks import BinaryQuantizer as BinaryQuantizer
    from smalti.models.bottlenecks import Categorical as Categorical
    from smalti.models.bottlenecks import Gaussian as Gaussian
    from smalti.models.bottlenecks import Identity as Identity
    from smalti.models.bottlenecks import ProductQuantizer as ProductQuantizer
    from smalti.models.bottlenecks import ResidualQuantizer as ResidualQuantizer
    from smalti.models.bottlenecks import VectorQuantizer as VectorQuantizer
    from smalti.models.config import AutoencoderConfig as AutoencoderConfig
    from smalti.recipes import RECIPES as RECIPES
    from smalti.training.experiment import Experiment as Experiment
    from smalti.training.settings import RunSettings as RunSettings

__version__ = "0.1.0"

VERBS = ("demo", "train", "evaluate", "compare", "report", "estimators", "reconstruct", "encode", "decode", "sample",
         "interpolate", "compress", "decompress", "tokenize", "convert", "export", "serve",
         "models", "info")  # fmt: skip
_ROOMS = ("models",)  # verbs whose name a room has: from Python they are `smalti.apps.models.models`
_BOTTLENECKS = ("FSQ", "BinaryQuantizer", "Categorical", "Gaussian", "Identity", "ProductQuantizer",
                "ResidualQuantizer", "VectorQuantizer")  # fmt: skip
_HOMES = {
    **{name: f"smalti.apps.{name}" for name in VERBS if name not in _ROOMS},
    **dict.fromkeys(_BOTTLENECKS, "smalti.models.bottlenecks"),
    "Autoencoder": "smalti.models.autoencoder",
    "AutoencoderConfig": "smalti.models.config",
    "Codec": "smalti.codec",
    "DataConfig": "smalti.data.config",
    "Experiment": "smalti.training.experiment",
    "Generator": "smalti.generate.generator",
    "RECIPES": "smalti.recipes",
    "RunSettings": "smalti.training.settings",
    "SmaltiError": "smalti.errors",
    "open_data": "smalti.data.sources",
    "to_pil": "smalti.images.reading",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smalti' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
