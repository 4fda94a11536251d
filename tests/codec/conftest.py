"""A tiny model of each kind that files are made with, saved so that it has a hash."""

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PriorConfig

K, GRID = 37, (4, 4)


def save_model(folder, bottleneck=None, channels=3, value_range=None):
    """A random autoencoder of stride 4."""
    torch.manual_seed(1)
    vq = {"kind": "vector_quantizer", "codebook_size": K, "code_dim": 4, "start": "random"}
    config = AutoencoderConfig(
        networks={"kind": "residual", "width": 8, "depth": 1, "stride": 4},
        bottleneck=bottleneck or vq,
        preprocessing=Preprocessing(image_size=16, channels=channels, value_range=value_range),
    )
    Autoencoder(config).eval().save_pretrained(folder)
    return Autoencoder.from_pretrained(folder)


def save_prior(folder, model, model_folder, kind="pixelcnn", condition_dropout=0.0, spread=None, **options):
    """A random prior of its codes, far from uniform; the less so, the smaller the spread of its weights."""
    torch.manual_seed(2)
    prior = {"pixelcnn": {"channels": 8, "layers": 1}, "transformer": {"width": 8, "layers": 1, "heads": 2}}.get(
        kind, {}
    )
    config = PriorConfig(
        prior={"kind": kind, **prior},
        codebook_size=K,
        grid=GRID,
        tokenizer=str(model_folder),
        tokenizer_hash=model.source_hash,
        condition_dropout=condition_dropout,
        **options,
    )
    fresh = CodeModel(config)
    with torch.no_grad():
        for parameter in fresh.parameters():
            # with larger weights a deep PixelSNAIL is chaotic: rounding moves its logits by 1e-3 of themselves
            parameter.add_(torch.randn_like(parameter) * (spread or (0.05 if kind == "pixelsnail" else 0.4)))
    fresh.save_pretrained(folder)
    return CodeModel.from_pretrained(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def model(folder):
    return save_model(folder / "model")


@pytest.fixture(scope="session")
def prior(folder, model):
    return save_prior(folder / "prior", model, folder / "model")


def kinds_of_images():
    """Colour, grey, transparent colour and transparent grey, of several sizes."""
    colour, grey = Image.fromarray(draw_image(0, (21, 34))), Image.fromarray(draw_image(1)).convert("L")
    alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 34), dtype=np.uint8))
    transparent, grey_transparent = colour.copy(), Image.fromarray(draw_image(2, (21, 34))).convert("L")
    transparent.putalpha(alpha)
    grey_transparent.putalpha(alpha)
    return [colour, grey, transparent, grey_transparent, Image.fromarray(np.full((1, 1, 3), 77, np.uint8))]


def random_grids(count=20, size=K, seed=0, shape=(1, *GRID)):
    """Codes far from uniform, as a trained model has them."""
    rng = np.random.default_rng(seed)
    return [np.minimum(rng.geometric(4 / size, shape) - 1, size - 1).astype(np.int64) for _ in range(count)]
