"""Categorical VAEs, fully connected, on MNIST and small emoji: what gradient estimators are compared on.

    smalti train mnist_categorical --data DIR --out runs/mnist_categorical

DIR holds MNIST's four idx files. Protocols and results: experiments/categorical.md.
"""

from typing import Any, Literal

from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes.autoencoders import Estimator
from smalti.schedules import Schedule, constant, cosine
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig


def mnist_categorical(
    *,
    data: str,
    variables: int = 4,
    classes: int = 8,
    hidden: tuple[int, ...] = (512, 256),
    decoder_hidden: tuple[int, ...] | None = None,
    estimator: Estimator = "reinmax",
    first_temperature: float = 1.3,
    last_temperature: float = 1.3,
    temperature_steps: int = 0,
    learned_prior: bool = False,
    binarize: Literal["none", "dynamic", "fixed"] = "none",
    learning_rate: float = 5e-4,
    decay_learning_rate: bool = False,
    steps: int = 88_000,
    batch_size: int = 100,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 550,
    checkpoint_every: int = 5_500,
) -> Experiment:
    """VAE with a few categorical variables as its latents, fully connected, on MNIST.

    Args:
        data: a folder with MNIST's idx files.
        variables: categorical variables of the latents.
        classes: of each variable.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them; none is a linear encoder and decoder.
        decoder_hidden: widths of the decoder's hidden layers, where they are others.
        estimator: how the gradient passes the draw of a code.
        first_temperature: of the relaxation, at the first step.
        last_temperature: of the relaxation, where its exponential decay ends.
        temperature_steps: the decay's steps.
        learned_prior: learn a distribution for each variable; otherwise the prior is uniform.
        binarize: none (grey values as targets of the cross-entropy), dynamic, or fixed.
        learning_rate: of Adam.
        decay_learning_rate: by a cosine to 0; otherwise it is constant.
        steps: optimiser steps; 88,000 are 160 epochs of 55,000 images at batch 100.
        batch_size: images per batch.
        seed: of everything random.
        device: auto, cpu, cuda, ...
        precision: auto, fp32, or bf16 (autocast).
        log_every: steps between lines of metrics.jsonl.
        checkpoint_every: steps between checkpoints.
    """
    return _experiment(
        "mnist_categorical",
        28,
        variables,
        classes,
        hidden,
        decoder_hidden,
        estimator,
        Schedule(kind="exponential", start=first_temperature, end=last_temperature, steps=temperature_steps),
        learned_prior,
        binarize,
        data=data,
        optimizer=_adam(cosine(learning_rate, 0.0, steps) if decay_learning_rate else constant(learning_rate)),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        log_every=log_every,
        sample_every=20 * log_every,
        checkpoint_every=checkpoint_every,
    )


def emoji_categorical(
    *,
    data: str = "emoji",
    variables: int = 4,
    classes: int = 8,
    estimator: Estimator = "gumbel_straight_through",
    temperature: float = 0.5,
    learning_rate: float = 5e-4,
    steps: int = 2_000,
    batch_size: int = 100,
    seed: int = 0,
) -> Experiment:
    """The same on grey emoji of 16x16 pixels: half a minute, for `smalti estimators`.

    Args:
        data: emoji, or any other images.
        variables: categorical variables of the latents.
        classes: of each variable.
        estimator: how the gradient passes the draw of a code.
        temperature: of the relaxation.
        learning_rate: of Adam.
        steps: optimiser steps.
        batch_size: images per batch.
        seed: of everything random.
    """
    return _experiment(
        "emoji_categorical",
        16,
        variables,
        classes,
        (256, 128),
        None,
        estimator,
        constant(temperature),
        False,
        "none",
        data=data,
        optimizer=_adam(constant(learning_rate)),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
    )


def _adam(learning_rate: Schedule) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=learning_rate, weight_decay=0.0, clip_norm=0.0, ema_decay=0.0)


def _experiment(
    recipe: str,
    image_size: int,
    variables: int,
    classes: int,
    hidden: tuple[int, ...],
    decoder_hidden: tuple[int, ...] | None,
    estimator: Estimator,
    temperature: Schedule,
    learned_prior: bool,
    binarize: Literal["none", "dynamic", "fixed"],
    **training: Any,
) -> Experiment:
    grid = (1, variables)
    networks = {
        "kind": "mlp",
        "image_size": image_size,
        "hidden": tuple(hidden),
        "decoder_hidden": decoder_hidden,
        "grid": grid,
        "activation": "relu",
        "start": "small",
        "grey": 0.0,
    }
    bottleneck = {
        "kind": "categorical",
        "codebook_size": classes,
        "code_dim": 0,
        "logits": "features",
        "estimator": estimator,
        "temperature": temperature,
        "prior_grid": grid if learned_prior else None,
    }
    return Experiment(
        recipe=recipe,
        model=AutoencoderConfig(
            networks=networks,
            bottleneck=bottleneck,
            likelihood={"kind": "bernoulli"},
            preprocessing=Preprocessing(image_size=image_size, channels=1, binarize=binarize),
        ),
        loss=LossConfig(beta=constant(1.0)),
        **training,
    )
