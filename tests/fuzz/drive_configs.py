"""Mutated config.json of models and priors of all kinds: one clear error, or a model that works."""

import json
import warnings
from pathlib import Path

import torch

from smalti.files import CONFIG
from smalti.images.preprocessing import Corruption, Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PriorConfig, TextConfig
from smalti.priors.text import TextTokenizer

from .evil import as_json, changed_value
from .harness import changed_bytes

SHORT = 60
SMALL = 1 << 16  # numbers; the work of a larger grid is what its config asks for
RESIDUAL = {"kind": "residual", "width": 8, "depth": 1, "stride": 4}
STRIDED = {"kind": "strided", "width": 8, "depth": 1, "stride": 4, "residual_channels": 4}
MLP = {"kind": "mlp", "image_size": 8, "hidden": (12, 8), "grid": (2, 2), "activation": "relu"}
CODEBOOK = {"codebook_size": 16, "code_dim": 4}
SCHEDULE = {"kind": "exponential", "start": 1.0, "end": 0.1, "portion": 0.5, "warmup": 0}
BERNOULLI, PREDICTED = {"kind": "bernoulli"}, {"kind": "gaussian", "scale": "predicted"}
EACH, MIXTURE = {"decay": 0.5, "compare": "product"}, {"kind": "logistic_mixture", "num_components": 2}
TEXT = TextConfig(languages=("en",), vocabulary=300, length=8)
AUTOENCODERS = [
    (RESIDUAL, {"kind": "vector_quantizer", **CODEBOOK, "decay": 0.9, "start": "random"}, {"kind": "gaussian"}),
    (STRIDED, {"kind": "residual_quantizer", "num_codebooks": 2, **CODEBOOK, "drop": 0.1}, {"kind": "laplace"}),
    (RESIDUAL, {"kind": "product_quantizer", "num_codebooks": 2, **CODEBOOK, "quantizer": EACH}, BERNOULLI),
    (STRIDED, {"kind": "fsq", "levels": (4, 3, 3), "variant": "listing"}, MIXTURE),
    (RESIDUAL, {"kind": "binary_quantizer", "bits": 5, "spherical": True}, {"kind": "logit_laplace", "eps": 0.1}),
    (RESIDUAL, {"kind": "categorical", **CODEBOOK, "temperature": SCHEDULE}, PREDICTED),
    (MLP, {"kind": "categorical", "logits": "features", "codebook_size": 6, "code_dim": 0}, BERNOULLI),
    (MLP, {"kind": "gaussian", "channels": 3}, {"kind": "gaussian", "scale": 0.1}),
    (STRIDED, {"kind": "identity", "channels": 3}, {"kind": "gaussian"}),
]  # fmt: skip
PRIORS = [
    ({"kind": "pixelcnn", "channels": 4, "layers": 1, "dropout": 0.1}, {"label_kind": "class", "labels": ("a", "b")}),
    ({"kind": "masked_pixelcnn", "channels": 4, "layers": 1, "code_dim": 1}, {}),
    ({"kind": "pixelsnail", "channels": 4, "blocks": 1, "heads": 2, "key_width": 2}, {}),
    ({"kind": "transformer", "width": 8, "layers": 1, "heads": 2}, {"text": TEXT}),
    ({"kind": "maskgit", "width": 8, "layers": 1, "heads": 2, "order_temperature": 4.5}, {"condition_dropout": 0.1}),
    ({"kind": "histogram", "smoothing": 2.0}, {}),
    ({"kind": "uniform"}, {}),
]  # fmt: skip


def prepare(folder):
    """(class, folder, config, bytes of it) of each."""
    torch.manual_seed(0)
    made, square = [], Preprocessing(image_size=8, channels=1)
    for networks, bottleneck, likelihood in AUTOENCODERS:
        noisy = Corruption(noise="masking", noise_level=0.2, noise_lowest=0.1, noise_patch=2)
        config = AutoencoderConfig(
            networks=networks, bottleneck=bottleneck, likelihood=likelihood, preprocessing=square, corruption=noisy
        )
        made.append(Autoencoder(config))
    for prior, options in PRIORS:
        config = PriorConfig(
            prior=prior, codebook_size=12, grid=(2, 3), tokenizer="x", tokenizer_hash="0" * 64, **options
        )
        text = TextTokenizer.train(["red heart", "blue heart"], 300, 8) if config.text else None
        made.append(CodeModel(config, text))
    found = []
    for number, model in enumerate(made):
        model.save_pretrained(folder / str(number))
        data = (folder / str(number) / CONFIG).read_bytes()
        found.append((type(model), folder / str(number), json.loads(data), data))
        use(type(model), folder / str(number))  # the first use of a kernel imports much
    return found


def attempt(models, rng):
    """One of them with another config, loaded and used."""
    kind, folder, config, data = models[rng.integers(len(models))]
    if rng.random() < 0.1:
        data = changed_bytes(data, rng, front=len(data))
    else:
        for _ in range(int(rng.integers(1, 3))):
            config = changed_value(config, rng)
        data = as_json(config, rng)
    (folder / CONFIG).write_bytes(data)
    return use(kind, folder)


def use(kind: type, folder: Path) -> str:
    """Load a model and let it work once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind.from_pretrained(folder)
    if isinstance(model, CodeModel):
        condition = torch.full((1,), -1) if model.prior.conditions.count else None
        if model.text:
            condition = model.text(["red heart"])
        if model.prior.num_codes * model.prior.codebook_size < SMALL:
            model.prior.nll(torch.zeros(1, *model.config.grid, dtype=torch.int64), condition)
        return "loads"
    image = torch.rand(1, model.config.preprocessing.channels, 8, 8)
    with torch.no_grad():
        model(image)
    return "loads"
