"""Priors over the codes of a trained tokenizer.

smalti train transformer --tokenizer runs/dvae --data emoji --label subgroup --out runs/transformer
smalti evaluate runs/transformer --data emoji
smalti sample runs/transformer --label heart --num 16 --out hearts.png
"""

from pathlib import Path
from typing import Any, Literal

from smalti.configs import Spec
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, file_hash
from smalti.priors.config import PriorConfig
from smalti.schedules import cosine
from smalti.train.experiment import OptimizerConfig, PriorExperiment


def pixelcnn(*, tokenizer: str, channels: int = 96, layers: int = 8, **common: Any) -> PriorExperiment:
    """Gated PixelCNN over the codes of a tokenizer.

    Args:
        tokenizer: the run of a trained model with a codebook.
        channels: of the features.
        layers: gated layers after the first.
        **common: see `prior_experiment`.
    """
    prior = {"kind": "pixelcnn", "channels": channels, "layers": layers}
    return prior_experiment("pixelcnn", prior, tokenizer, **common)


def transformer(
    *, tokenizer: str, width: int = 192, layers: int = 4, heads: int = 4, dropout: float = 0.1, **common: Any
) -> PriorExperiment:
    """Decoder-only transformer over the codes of a tokenizer.

    Args:
        tokenizer: the run of a trained model with a codebook.
        width: of the residual stream.
        layers: blocks.
        heads: attention heads.
        dropout: of the embeddings and of each block's output.
        **common: see `prior_experiment`.
    """
    prior = {"kind": "transformer", "width": width, "layers": layers, "heads": heads, "dropout": dropout}
    return prior_experiment("transformer", prior, tokenizer, **common)


def prior_experiment(
    recipe: str,
    prior: Spec,
    tokenizer: str,
    *,
    data: str = "emoji",
    label: str = "",
    learning_rate: float = 1e-3,
    warmup: int = 100,
    weight_decay: float = 0.05,
    ema_decay: float = 0.998,
    steps: int = 2000,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 50,
    sample_every: int = 500,
    checkpoint_every: int = 500,
) -> PriorExperiment:
    """What the priors have in common.

    Args:
        recipe: the name of the recipe.
        prior: its spec.
        tokenizer: the run of a trained model with a codebook.
        data: emoji, a folder of images or of idx files, or *.parquet.
        label: the kind of label to condition on (emoji: group or subgroup; folders: class); empty is none.
        learning_rate: highest of the schedule.
        warmup: steps to reach it.
        weight_decay: of AdamW.
        ema_decay: of the averaged weights that are saved.
        steps: optimiser steps.
        batch_size: images per step.
        seed: of everything random.
        device: auto, cpu, cuda, ...
        precision: auto, fp32, or bf16 (autocast).
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures.
        checkpoint_every: steps between checkpoints.
    """
    codebook_size, grid = _codes_of(tokenizer)
    return PriorExperiment(
        recipe=recipe,
        data=data,
        model=PriorConfig(
            prior=prior,
            codebook_size=codebook_size,
            grid=grid,
            tokenizer=str(Path(tokenizer).resolve()),
            tokenizer_hash=file_hash(Path(tokenizer) / WEIGHTS),
            label_kind=label,
            labels=_labels(data, label) if label else (),
        ),
        optimizer=OptimizerConfig(
            learning_rate=cosine(learning_rate, 0.0, steps, warmup=warmup),
            weight_decay=weight_decay,
            ema_decay=ema_decay,
        ),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        log_every=log_every,
        sample_every=sample_every,
        checkpoint_every=checkpoint_every,
    )


def _codes_of(tokenizer: str) -> tuple[int, tuple[int, int]]:
    """K and the grid of a tokenizer's codes for the images that it was trained on."""
    from smalti.models.autoencoder import Autoencoder

    if not (Path(tokenizer) / CONFIG).exists():
        raise SmaltiError(f"{tokenizer}: no trained model in this folder; give the run of a vqvae or a dvae")
    model = Autoencoder.from_pretrained(tokenizer)
    side = -(-model.config.preprocessing.image_size // model.stride)
    shape = model.codes_bottleneck.grid_shape(side, side)
    if len(shape) != 2:
        raise SmaltiError(f"{tokenizer}: codes of the shape {shape} are not supported by the priors yet")
    return model.codes_bottleneck.codebook_size, (shape[0], shape[1])


def _labels(data: str, kind: str) -> tuple[str, ...]:
    from smalti.train.codes import labels_of

    return tuple(sorted(set(labels_of(data, "all", kind))))
