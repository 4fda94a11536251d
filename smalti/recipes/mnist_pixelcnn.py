"""The first PixelCNN on dynamically binarised MNIST, without a tokenizer, in 8 epochs.

    smalti train mnist_pixelcnn --data DIR --out runs/mnist_pixelcnn
    smalti evaluate runs/mnist_pixelcnn --data DIR

DIR holds MNIST's four idx files. Published: 81.45 nats after 457 epochs (this network in
EugenHotaj/pytorch-generative); 81.30 (arXiv:1601.06759). Measured here: experiments/mnist_pixelcnn.md.
For so few epochs neither the batch and the learning rate (256; 1e-3, times 0.999977 a step) nor the first weights are
the published ones.
"""

from typing import Literal

from smalti.priors.config import PixelLevels, PriorConfig
from smalti.schedules import cosine
from smalti.training.experiment import OptimizerConfig, PriorExperiment


def mnist_pixelcnn(
    *,
    data: str,
    channels: int = 32,
    layers: int = 15,
    learning_rate: float = 2e-3,
    muon_rate: float = 1.5,
    warmup: int = 50,
    ema_decay: float = 0.999,
    steps: int = 13_750,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 275,
    sample_every: int = 3_438,
    checkpoint_every: int = 1_375,
) -> PriorExperiment:
    """PixelCNN (7x7, then 15 residual blocks) on binary pixels of MNIST.

    Args:
        data: a folder with MNIST's idx files.
        channels: of the residual stream.
        layers: residual blocks.
        learning_rate: highest of the cosine schedule.
        muon_rate: Muon learns the kernels of the convolutions at the learning rate times this; 0 is AdamW for all.
        warmup: steps to reach it.
        ema_decay: of the averaged weights that are saved and evaluated; 0 is none.
        steps: optimiser steps; 13,750 are 8 epochs of 55,000 images at batch 32.
        batch_size: images per batch.
        seed: of everything random.
        device: auto, cpu, cuda, ...
        precision: auto, fp32, or bf16 (autocast).
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures.
        checkpoint_every: steps between checkpoints.
    """
    pixels = PixelLevels(image_size=28, channels=1, levels=2)
    return PriorExperiment(
        recipe="mnist_pixelcnn",
        data=data,
        model=PriorConfig(
            prior={"kind": "masked_pixelcnn", "code_dim": 1, "channels": channels, "layers": layers},
            codebook_size=pixels.levels,
            grid=pixels.grid,
            tokenizer="pixels",
            tokenizer_hash=pixels.hash,
            pixels=pixels,
        ),
        optimizer=OptimizerConfig(
            learning_rate=cosine(learning_rate, 0.0, steps, warmup=warmup),
            betas=(0.9, 0.99),
            weight_decay=0.0,
            muon_rate=muon_rate,
            clip_norm=1.0,
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
