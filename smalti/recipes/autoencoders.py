"""AE, VAE, VQ-VAE and dVAE with the same networks, data, schedule and budget; they differ in the bottleneck only.

    smalti train dvae --data emoji --out runs/dvae

Expected on emoji at 32x32, 8x8 codes of K = 512: see the table in README.md; `experiments/emoji_dvae.md` has an
ablation of the dVAE's recipe.
"""

from typing import Any, Literal

from smalti.configs import Spec
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.schedules import Schedule, constant, cosine, linear
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig, PhotoConfig

Estimator = Literal[
    "gumbel_softmax", "gumbel_straight_through", "straight_through", "gumbel_rao", "reinmax", "reinforce"
]
LikelihoodName = Literal["gaussian", "laplace", "logit_laplace", "logistic_mixture", "bernoulli"]


def ae(*, latent_channels: int = 16, **common: Any) -> Experiment:
    """Autoencoder: no bottleneck but the number of channels; reconstructs best, cannot be sampled from.

    Args:
        latent_channels: channels of the latents at each grid position.
        **common: see `experiment`.
    """
    return experiment("ae", {"kind": "identity", "channels": latent_channels}, LossConfig(), **common)


def vae(*, latent_channels: int = 16, beta: float = 1.0, beta_warmup: int = 0, **common: Any) -> Experiment:
    """Variational autoencoder: Gaussian latents, reparameterised.

    Args:
        latent_channels: channels of the latents at each grid position.
        beta: weight of the KL; 1 trains the ELBO.
        beta_warmup: steps over which beta rises from 0.
        **common: see `experiment`.
    """
    bottleneck = {"kind": "gaussian", "channels": latent_channels}
    return experiment("vae", bottleneck, LossConfig(beta=_ramp(beta, beta_warmup)), **common)


def vqvae(
    *,
    codebook_size: int = 512,
    code_dim: int = 16,
    learning: Literal["ema", "gradient", "simvq"] = "ema",
    estimator: Literal["straight_through", "rotation", "nsvq", "diveq"] = "straight_through",
    decay: float = 0.99,
    restart_below: float = 0.3,
    start: Literal["kmeans", "random"] = "kmeans",
    normalize: bool = False,
    commitment_weight: float = 0.25,
    **common: Any,
) -> Experiment:
    """VQ-VAE: the nearest of K code vectors, with a straight-through gradient.

    Args:
        codebook_size: K.
        code_dim: D, of a code vector.
        learning: "ema" (moving averages), "gradient" (codebook loss) or "simvq" (a matrix, by codebook loss).
        estimator: how the gradient passes the nearest code vector.
        decay: of the moving averages.
        restart_below: restart codes whose share is below this fraction of 1/K; 0 is never.
        start: first values of the codebook: k-means of the first batch, or random.
        normalize: compare directions only (l2-normalised codes).
        commitment_weight: of the term that keeps features near their code.
        **common: see `experiment`.
    """
    bottleneck = {
        "kind": "vector_quantizer",
        "codebook_size": codebook_size,
        "code_dim": code_dim,
        "learning": learning,
        "estimator": estimator,
        "decay": decay,
        "restart_below": restart_below,
        "start": start,
        "normalize": normalize,
    }
    return experiment("vqvae", bottleneck, LossConfig(commitment_weight=commitment_weight), **common)


def dvae(
    *,
    codebook_size: int = 512,
    code_dim: int = 16,
    logits: Literal["distance", "convolution"] = "distance",
    estimator: Estimator = "gumbel_softmax",
    first_temperature: float = 1.0,
    last_temperature: float = 1 / 16,
    temperature_portion: float = 0.7,
    sharpness: float = 2.0,
    beta: float = 1.0,
    beta_warmup: int = 0,
    restart_below: float = 0.3,
    steps: int = 2400,
    **common: Any,
) -> Experiment:
    """dVAE, the first stage of DALL-E: categorical latents, relaxed by Gumbel-Softmax while training.

    Args:
        codebook_size: K.
        code_dim: D, of a code vector.
        logits: "distance" to the code vectors, or DALL-E's 1x1 "convolution".
        estimator: how the gradient passes the draw of a code.
        first_temperature: of the relaxation, at the first step.
        last_temperature: of the relaxation, where the cosine ends.
        temperature_portion: the part of all steps that the cosine takes.
        sharpness: nats by which a feature prefers its code at the start.
        beta: weight of the KL; 1 trains the ELBO, 6.6 is DALL-E's.
        beta_warmup: steps over which beta rises from 0.
        restart_below: restart codes whose share is below this fraction of 1/K; 0 is never.
        steps: optimiser steps.
        **common: see `experiment`.
    """
    temperature = cosine(first_temperature, last_temperature, int(steps * temperature_portion))
    bottleneck = {
        "kind": "categorical",
        "codebook_size": codebook_size,
        "code_dim": code_dim,
        "logits": logits,
        "estimator": estimator,
        "temperature": temperature,
        "sharpness": sharpness,
        "restart_below": restart_below,
    }
    if logits == "convolution":
        bottleneck["in_channels"] = 2 * code_dim
    return experiment("dvae", bottleneck, LossConfig(beta=_ramp(beta, beta_warmup)), steps=steps, **common)


def experiment(
    recipe: str,
    bottleneck: Spec,
    loss: LossConfig,
    *,
    data: str = "emoji",
    image_size: int = 32,
    channels: int = 3,
    stride: int = 4,
    width: int = 64,
    depth: int = 1,
    patch: int = 2,
    convolutions: int = 2,
    block_ratio: int = 2,
    stem_kernel: int = 3,
    likelihood: LikelihoodName = "gaussian",
    learning_rate: float = 4e-3,
    warmup: int = 100,
    weight_decay: float = 1e-4,
    clip_norm: float = 1.0,
    accumulate: int = 1,
    ema_decay: float = 0.998,
    augment: Literal["none", "flip", "flip_shift"] = "flip_shift",
    perceptual: Literal["none", "effnet"] = "none",
    perceptual_weight: float = 1.0,
    adversarial_weight: float = 0.0,
    adversarial_start: int | None = None,
    steps: int = 2400,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    log_every: int = 50,
    sample_every: int = 500,
    checkpoint_every: int = 500,
) -> Experiment:
    """What the four have in common: residual networks, AdamW with warm-up and cosine, averaged weights.

    Args:
        recipe: the name of the recipe.
        bottleneck: its spec.
        loss: the weights of the loss's terms.
        data: emoji, a folder of images or of idx files, or *.parquet.
        image_size: height and width in training, pixels.
        channels: 3 for colour, 1 for grey.
        stride: pixels per code in both directions, a power of two.
        width: channels at the finest resolution; twice as many at each coarser one.
        depth: residual blocks at each resolution.
        patch: pixels folded into channels at the ends of the networks; 1 is DALL-E's.
        convolutions: in a residual block; 4 is DALL-E's.
        block_ratio: outer channels of a block divided by its inner ones; 4 is DALL-E's.
        stem_kernel: size of the first convolution; 7 is DALL-E's.
        likelihood: p(x|z).
        learning_rate: highest of the schedule.
        warmup: steps to reach it.
        weight_decay: of AdamW.
        clip_norm: the gradient's norm is clipped to this.
        accumulate: batches per optimiser step.
        ema_decay: of the averaged weights that are saved.
        augment: none, flip, or flip_shift.
        perceptual: a feature network whose distance is added to the loss; for photographs.
        perceptual_weight: of that distance.
        adversarial_weight: of a patch discriminator, in lengths of the rest's gradient; 0 is none, 0.1 a good start.
        adversarial_start: the first step with a discriminator; by default half of the steps.
        steps: optimiser steps.
        batch_size: images per batch.
        seed: of everything random.
        device: auto, cpu, cuda, ...
        precision: auto, fp32, or bf16 (autocast).
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures.
        checkpoint_every: steps between checkpoints.
    """
    networks = {
        "kind": "residual",
        "stride": stride,
        "width": width,
        "depth": depth,
        "patch": patch,
        "convolutions": convolutions,
        "block_ratio": block_ratio,
        "stem_kernel": stem_kernel,
    }
    return Experiment(
        recipe=recipe,
        data=data,
        model=AutoencoderConfig(
            networks=networks,
            bottleneck=bottleneck,
            likelihood={"kind": likelihood},
            preprocessing=Preprocessing(image_size=image_size, channels=channels),
        ),
        loss=loss,
        optimizer=OptimizerConfig(
            learning_rate=cosine(learning_rate, 0.0, steps, warmup=warmup),
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            accumulate=accumulate,
            ema_decay=ema_decay,
        ),
        photo=PhotoConfig(
            perceptual=perceptual,
            perceptual_weight=perceptual_weight,
            adversarial_weight=adversarial_weight,
            adversarial_start=steps // 2 if adversarial_start is None else adversarial_start,
        ),
        augment=augment,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        log_every=log_every,
        sample_every=sample_every,
        checkpoint_every=checkpoint_every,
    )


def _ramp(beta: float, warmup: int) -> Schedule:
    return linear(0.0, beta, warmup) if warmup else constant(beta)
