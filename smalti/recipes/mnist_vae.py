"""The VAE of Burda et al. on dynamically binarised MNIST, shortened from 3,280 epochs to 200.

    smalti train mnist_vae --data DIR --out runs/mnist
    smalti evaluate runs/mnist --data DIR --importance_samples 5000

DIR holds MNIST's four idx files. Published: 86.76 nats (k = 1, one layer, full schedule; arXiv:1509.00519, table 1).
Measured here, with command and time: experiments/mnist_vae.md.
"""

from typing import Literal

from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.schedules import cosine, linear
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig


def mnist_vae(
    *,
    data: str,
    latent_channels: int = 50,
    activation: Literal["relu", "tanh"] = "relu",
    learning_rate: float = 2e-3,
    beta_warmup: int = 5_500,
    steps: int = 110_000,
    batch_size: int = 100,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 550,
    checkpoint_every: int = 5_500,
) -> Experiment:
    """VAE 784-200-200-50 on dynamically binarised MNIST.

    Args:
        data: a folder with MNIST's idx files.
        latent_channels: size of the latent vector.
        activation: of the hidden layers; the paper's is tanh, which in 200 epochs gets less far.
        learning_rate: highest of the cosine schedule.
        beta_warmup: steps over which the weight of the KL rises from 0 to 1.
        steps: optimiser steps; 110,000 are 200 epochs of 55,000 images at batch 100.
        batch_size: images per batch.
        seed: of everything random.
        device: auto, cpu, cuda, ...
        precision: auto, fp32, or bf16 (autocast).
        log_every: steps between lines of metrics.jsonl.
        checkpoint_every: steps between checkpoints.
    """
    return Experiment(
        recipe="mnist_vae",
        data=data,
        model=AutoencoderConfig(
            networks={"kind": "mlp", "image_size": 28, "hidden": (200, 200), "activation": activation},
            bottleneck={"kind": "gaussian", "channels": latent_channels},
            likelihood={"kind": "bernoulli"},
            preprocessing=Preprocessing(image_size=28, channels=1, binarize="dynamic"),
        ),
        loss=LossConfig(beta=linear(0.0, 1.0, beta_warmup)),
        optimizer=OptimizerConfig(
            learning_rate=cosine(learning_rate, 0.0, steps), weight_decay=0.0, clip_norm=0.0, ema_decay=0.9995
        ),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        log_every=log_every,
        sample_every=20 * log_every,
        checkpoint_every=checkpoint_every,
    )
