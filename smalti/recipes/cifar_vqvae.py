"""The VQ-VAE that its authors show on CIFAR-10: 10,000 updates.

    smalti train cifar_vqvae --data 'DIR/cifar10-*.parquet' --out runs/cifar
    smalti evaluate runs/cifar --data 'DIR/cifar10-*.parquet'

Published (google-deepmind/sonnet, examples/vqvae_example.ipynb): reconstruction error 0.056 in units of the data's
variance, perplexity 326, both of single training batches. Measured here: experiments/cifar_vqvae.md.
"""

from typing import Literal

from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.schedules import constant
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig

VARIANCE = 0.06327  # of CIFAR-10's pixels in units of [0, 1]: the example divides its squared error by it


def cifar_vqvae(
    *,
    data: str,
    codebook_size: int = 512,
    code_dim: int = 64,
    learning: Literal["ema", "gradient", "simvq"] = "ema",
    start: Literal["kmeans", "random"] = "random",
    normalize: bool = False,
    restart_below: float = 0.0,
    levels: tuple[int, ...] = (),
    width: int = 128,
    residual_channels: int = 32,
    learning_rate: float = 3e-4,
    commitment_weight: float = 0.25,
    steps: int = 10_000,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 100,
    sample_every: int = 2_500,
    checkpoint_every: int = 1_000,
) -> Experiment:
    """VQ-VAE of the authors' example: K = 512, D = 64, 8x8 codes, moving averages, no remedy against collapse.

    Args:
        data: CIFAR-10, for example as parquet files.
        codebook_size: K.
        code_dim: D, of a code vector.
        learning: "ema", "gradient" (the VQ loss) or "simvq".
        start: first values of the codebook: random, or k-means of the first batch.
        normalize: compare directions only.
        restart_below: restart codes whose share is below this fraction of 1/K; 0 is never.
        levels: FSQ with these levels instead of a codebook.
        width: channels of the networks.
        residual_channels: channels inside a residual block.
        learning_rate: of Adam, constant.
        commitment_weight: of the term that keeps features near their code.
        steps: optimiser steps.
        batch_size: images per batch.
        seed: of everything random.
        device: auto, cpu, cuda, ...
        precision: auto, fp32, or bf16 (autocast).
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures.
        checkpoint_every: steps between checkpoints.
    """
    vector_quantizer = {
        "kind": "vector_quantizer",
        "codebook_size": codebook_size,
        "code_dim": code_dim,
        "learning": learning,
        "start": start,
        "normalize": normalize,
        "restart_below": restart_below,
    }
    return Experiment(
        recipe="cifar_vqvae",
        data=data,
        model=AutoencoderConfig(
            networks={
                "kind": "strided",
                "stride": 4,
                "width": width,
                "depth": 2,
                "residual_channels": residual_channels,
            },
            bottleneck={"kind": "fsq", "levels": tuple(levels)} if levels else vector_quantizer,
            # nats per dimension are then the example's squared error / VARIANCE, plus a constant
            likelihood={"kind": "gaussian", "scale": (VARIANCE / 2) ** 0.5},
            preprocessing=Preprocessing(image_size=32, channels=3),
        ),
        loss=LossConfig(commitment_weight=commitment_weight),
        optimizer=OptimizerConfig(
            learning_rate=constant(learning_rate), weight_decay=0.0, clip_norm=0.0, ema_decay=0.0
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
