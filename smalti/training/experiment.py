"""What a recipe returns: a frozen description of one training. Without torch, so that `--help` is quick."""

from dataclasses import dataclass
from typing import Literal

from smalti.errors import SmaltiError
from smalti.models.config import AutoencoderConfig
from smalti.priors.config import PriorConfig
from smalti.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss, see `smalti.training.losses`.

    Attributes:
        beta: weight of the KL, a schedule over steps; 6.6 is DALL-E's as printed.
        commitment_weight: of the term whose gradient reaches the encoder.
        codebook_weight: of the term whose gradient reaches the codebook (unless it learns by moving averages).
        entropy_weight: of the entropies of LFQ and BSQ.
    """

    beta: Schedule = Schedule(end=1.0)
    commitment_weight: float = 0.25
    codebook_weight: float = 1.0
    entropy_weight: float = 0.1


@dataclass(frozen=True, kw_only=True)
class PhotoConfig:
    """Perceptual and adversarial terms for photographs (VQGAN).

    Attributes:
        perceptual: a feature network that `smalti.models.features` names, or "none".
        perceptual_weight: of its distance.
        adversarial_weight: norm of the adversarial gradient at the decoder's last layer, relative to that of the other
            terms; 0 is no discriminator.
        adversarial_start: the first step with a discriminator: an untrained decoder cannot learn from it.
        discriminator_width: channels of its first layer.
        discriminator_learning_rate: of its Adam.
    """

    perceptual: str = "none"
    perceptual_weight: float = 1.0
    adversarial_weight: float = 0.0
    adversarial_start: int = 0
    discriminator_width: int = 64
    discriminator_learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        for name in ("perceptual_weight", "adversarial_weight", "adversarial_start"):
            if getattr(self, name) < 0:
                raise SmaltiError(f"{name} must not be negative: {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, optionally with Muon; clipping, accumulation and weight averaging.

    Attributes:
        learning_rate: a schedule over steps.
        betas: of AdamW.
        epsilon: of AdamW.
        weight_decay: of AdamW, for tensors of two or more axes only.
        scalar_rate: factor of the learning rate of scalar parameters (log scales).
        muon_rate: kernels of hidden layers are optimised by Muon, at the learning rate times this; 0 is by AdamW.
        clip_norm: the gradient's norm is clipped to this; 0 is never.
        accumulate: batches per optimiser step.
        ema_decay: of the moving average of the weights, which is saved and evaluated; 0 is none. Warmed up as
            min(ema_decay, (1 + step) / (10 + step)).
    """

    learning_rate: Schedule = Schedule(end=1e-3)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-4
    scalar_rate: float = 5.0
    muon_rate: float = 0.0
    clip_norm: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.999


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of every training; deterministic on the same machine.

    Attributes:
        recipe: the name that made it.
        data: what `--data` said.
        optimizer: how it learns.
        steps: optimiser steps.
        batch_size: images per batch.
        seed: of everything random.
        device: "auto", "cpu", "cuda", ...; auto takes CUDA where there is one.
        precision: "fp32", or "bf16" for autocast; "auto" is bf16 on CUDA.
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures; 0 is never.
        checkpoint_every: steps between checkpoints.
    """

    recipe: str
    data: str
    optimizer: OptimizerConfig = OptimizerConfig()
    steps: int
    batch_size: int
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    log_every: int = 50
    sample_every: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise SmaltiError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise SmaltiError(f"precision must be auto, fp32 or bf16, not {self.precision!r}")
        if self.seed < 0:
            raise SmaltiError(f"seed must not be negative: {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Experiment(Training):
    """The training of an autoencoder, complete.

    Attributes:
        model: of the autoencoder.
        loss: the weights of its terms.
        photo: what photographs need beside it.
        augment: "none", "flip" or "flip_shift".
    """

    model: AutoencoderConfig
    loss: LossConfig = LossConfig()
    photo: PhotoConfig = PhotoConfig()
    augment: Literal["none", "flip", "flip_shift"] = "none"


@dataclass(frozen=True, kw_only=True)
class PriorExperiment(Training):
    """The training of a prior on the codes of a trained tokenizer, complete.

    Attributes:
        model: of the prior, with its tokenizer.
    """

    model: PriorConfig
