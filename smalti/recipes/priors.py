"""Priors over the codes of a trained tokenizer, or over pixels.

smalti train transformer --tokenizer runs/dvae --data emoji --text en --out runs/transformer
smalti evaluate runs/transformer --data emoji
smalti sample runs/transformer --text "red heart" --num 16 --out hearts.png
smalti train pixelsnail --tokenizer pixels --levels 2 --image_size 28 --data DIR --out runs/mnist
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from smalti.configs import Spec
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, file_hash
from smalti.priors.config import PixelLevels, PriorConfig, TextConfig
from smalti.schedules import cosine
from smalti.training.experiment import OptimizerConfig, PriorExperiment


def pixelcnn(
    *, tokenizer: str, channels: int = 96, layers: int = 8, dropout: float = 0.2, **common: Any
) -> PriorExperiment:
    """Gated PixelCNN over the codes of a tokenizer.

    Args:
        tokenizer: the run of a trained model with a codebook, or "pixels".
        channels: of the features.
        layers: gated layers after the first.
        dropout: of whole channels behind the gates.
        **common: see `prior_experiment`.
    """
    prior = {"kind": "pixelcnn", "channels": channels, "layers": layers, "dropout": dropout}
    return prior_experiment("pixelcnn", prior, tokenizer, **common)


def pixelsnail(
    *,
    tokenizer: str,
    channels: int = 64,
    blocks: int = 4,
    residuals: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
    **common: Any,
) -> PriorExperiment:
    """PixelSNAIL over the codes of a tokenizer: causal convolutions and attention.

    Args:
        tokenizer: the run of a trained model with a codebook, or "pixels".
        channels: of the residual stream.
        blocks: each is some gated residual layers and one attention.
        residuals: gated residual layers of a block.
        heads: attention heads.
        dropout: inside the gated residual layers.
        **common: see `prior_experiment`.
    """
    prior = {"kind": "pixelsnail", "channels": channels, "blocks": blocks, "residuals": residuals, "heads": heads}
    return prior_experiment("pixelsnail", {**prior, "dropout": dropout}, tokenizer, **common)


def transformer(
    *,
    tokenizer: str,
    width: int = 192,
    layers: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    text: str = "",
    text_vocabulary: int = 1024,
    text_length: int = 24,
    **common: Any,
) -> PriorExperiment:
    """Decoder-only transformer over the codes of a tokenizer, or over text and codes: the second stage of DALL-E.

    Args:
        tokenizer: the run of a trained model with a codebook, or "pixels".
        width: of the residual stream.
        layers: blocks.
        heads: attention heads.
        dropout: of the embeddings and of each block's output.
        text: languages of the captions to condition on, with commas between ("en" or "en,de,fr"); empty is no text.
        text_vocabulary: most text tokens, a byte-level BPE trained on the captions.
        text_length: tokens of a caption at most.
        **common: see `prior_experiment`.
    """
    prior = {"kind": "transformer", "width": width, "layers": layers, "heads": heads, "dropout": dropout}
    experiment = prior_experiment("transformer", prior, tokenizer, **common)
    return _with_text(experiment, text, text_vocabulary, text_length)


def maskgit(
    *,
    tokenizer: str,
    width: int = 192,
    layers: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    order_temperature: float = 4.5,
    text: str = "",
    text_vocabulary: int = 1024,
    text_length: int = 24,
    **common: Any,
) -> PriorExperiment:
    """Bidirectional transformer that draws many codes at a time, in rounds.

    Args:
        tokenizer: the run of a trained model with a codebook, or "pixels".
        width: of the residual stream.
        layers: blocks.
        heads: attention heads.
        dropout: of the embeddings and of each block's output.
        order_temperature: of the noise in the choice of which draws are kept in a round; inf is a random order.
        text: languages of the captions to condition on, with commas between; empty is no text.
        text_vocabulary: most text tokens, a byte-level BPE trained on the captions.
        text_length: tokens of a caption at most.
        **common: see `prior_experiment`.
    """
    prior = {"kind": "maskgit", "width": width, "layers": layers, "heads": heads, "dropout": dropout}
    experiment = prior_experiment("maskgit", {**prior, "order_temperature": order_temperature}, tokenizer, **common)
    return _with_text(experiment, text, text_vocabulary, text_length)


def prior_experiment(
    recipe: str,
    prior: Spec,
    tokenizer: str,
    *,
    data: str = "emoji",
    image_size: int = 32,
    levels: int = 256,
    label: str = "",
    condition_dropout: float = 0.1,
    learning_rate: float = 1e-3,
    warmup: int = 100,
    weight_decay: float = 0.05,
    ema_decay: float = 0.998,
    steps: int = 800,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 50,
    sample_every: int = 400,
    checkpoint_every: int = 200,
) -> PriorExperiment:
    """What the priors have in common.

    Args:
        recipe: the name of the recipe.
        prior: its spec.
        tokenizer: the run of a trained model with a codebook, or "pixels".
        data: emoji, a folder of images or of idx files, or *.parquet.
        image_size: with the tokenizer "pixels", the size of the images.
        levels: with the tokenizer "pixels", K: 256 is exact, 2 is binary (drawn anew each time, dynamic binarisation).
        label: the kind of label to condition on (emoji: group or subgroup; folders: class); empty is none.
        condition_dropout: share of the images that are shown without their label or text, for guidance.
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
    if tokenizer == "pixels":
        codes = _pixels(data, image_size, levels)
    else:
        if (image_size, levels) != (32, 256):
            raise SmaltiError("image_size and levels are for --tokenizer pixels; a trained tokenizer has its own")
        codes = _codes_of(tokenizer)
    return PriorExperiment(
        recipe=recipe,
        data=data,
        model=PriorConfig(
            prior=prior,
            label_kind=label,
            labels=_labels(data, label) if label else (),
            condition_dropout=condition_dropout,
            **codes,
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


def _with_text(experiment: PriorExperiment, languages: str, vocabulary: int, length: int) -> PriorExperiment:
    """The experiment, conditioned on captions where there are languages."""
    names = tuple(name.strip() for name in languages.split(",") if name.strip())
    if not names:
        return experiment
    if experiment.model.labels:
        raise SmaltiError("a prior takes --label or --text, not both")
    text = TextConfig(languages=names, vocabulary=vocabulary, length=length)
    return replace(experiment, model=replace(experiment.model, text=text))


def _pixels(data: str, image_size: int, levels: int) -> dict[str, Any]:
    from smalti.data.sources import open_data

    pixels = PixelLevels(image_size=image_size, channels=open_data(data).channels, levels=levels)
    shape = {"codebook_size": levels, "grid": pixels.grid}
    return {**shape, "tokenizer": "pixels", "tokenizer_hash": pixels.hash, "pixels": pixels}


def _codes_of(tokenizer: str) -> dict[str, Any]:
    """What a prior has to know of a tokenizer and of its codes for the images that it was trained on."""
    from smalti.models.autoencoder import Autoencoder

    if not (Path(tokenizer) / CONFIG).exists():
        raise SmaltiError(f"{tokenizer}: no trained model in this folder; give the run of a vqvae or a dvae, or pixels")
    model = Autoencoder.from_pretrained(tokenizer)
    side = -(-model.config.preprocessing.image_size // model.stride)
    shape = model.codes_bottleneck.grid_shape(side, side)
    if len(shape) != 2:
        raise SmaltiError(f"{tokenizer}: codes of the shape {shape} are not supported by the priors yet")
    return {
        "codebook_size": model.codes_bottleneck.codebook_size,
        "grid": (shape[0], shape[1]),
        "tokenizer": str(Path(tokenizer).resolve()),
        "tokenizer_hash": file_hash(Path(tokenizer) / WEIGHTS),
    }


def _labels(data: str, kind: str) -> tuple[str, ...]:
    from smalti.data.conditions import labels_of

    return tuple(sorted(set(labels_of(data, "all", kind))))
