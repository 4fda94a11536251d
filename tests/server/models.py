"""Tiny tokenizers and priors on disk, for the tests of the server and of the rooms that ask it."""

from pathlib import Path

import torch

from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel
from smalti.priors.config import PriorConfig, TextConfig
from smalti.priors.text import TextTokenizer

TRANSFORMER = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
TEXT = TextConfig(languages=("en",), vocabulary=300, length=12)


def save_prior(folder: Path, tokenizer: Path, prior: dict = TRANSFORMER, **options) -> Path:
    """A random prior of a saved tokenizer's codes, far from uniform."""
    model = Autoencoder.from_pretrained(tokenizer)
    (rows, columns), bottleneck = model.grid, model.codes_bottleneck
    config = PriorConfig(
        prior=prior,
        codebook_size=bottleneck.codebook_size,
        grid=(rows, columns * bottleneck.num_codebooks),
        tokenizer=str(tokenizer),
        tokenizer_hash=model.source_hash,
        **options,
    )
    torch.manual_seed(1)
    text = TextTokenizer.train(["red heart", "blue circle"], TEXT.vocabulary, TEXT.length) if config.text else None
    fresh = CodeModel(config, text)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    fresh.save_pretrained(folder)
    return folder
