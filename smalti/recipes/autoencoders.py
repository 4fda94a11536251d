"""AE, VAE, VQ-VAE and dVAE with the same networks, data, schedule and budget; they differ in the bottleneck only.

    smalti train dvae --data emoji --out runs/dvae

Expected on emoji at 32x32, 8x8 codes of K = 512: see the table in README.md; `experiments/emoji_dvae.md` has an
ablation of the dVAE's recipe.
"""

from dataclasses import dataclass
from typing import Any, Literal

from smalti.configs import Spec, effective
from smalti.data.config import Augment, DataConfig
from smalti.errors import SmaltiError
from smalti.images.preprocessing import Corruption
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes.flat import Following, recipe
from smalti.recipes.sizes import FOLLOWING, PresetName, by_size
from smalti.schedules import Schedule, constant, linear
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig, PhotoConfig

Estimator = Literal[
    "gumbel_softmax", "gumbel_straight_through", "straight_through", "gumbel_rao", "reinmax", "reinforce"
]
LikelihoodName = Literal["gaussian", "laplace", "logit_laplace", "logistic_mixture", "bernoulli"]
Choice = tuple[float | None, float]  # what was given, or None; and the default
MULTIPLIERS = (1, 2, 2, 4, 4, 8, 8)  # of the width, of vqgan networks
BY_SIZE = Following(FOLLOWING, by_size, "the preset")


@dataclass(frozen=True, kw_only=True)
class Around:
    """The networks around the bottleneck.

    Attributes:
        networks: "residual", those of DALL-E, which are the fastest; or "vqgan", with normalisation and attention,
            which take more time and draw more.
        stride: pixels per code in both directions, a power of two.
        width: channels at the finest resolution, more at the coarser ones.
        depth: residual blocks at each resolution.
        patch: pixels folded into channels at the ends of the networks; 1 is DALL-E's, and VQGAN's.
        last_kernel: size of the last convolution; 1 is DALL-E's, 3 VQGAN's.
        pooling: of residual networks between their resolutions: "max" or "average"; max is DALL-E's.
        activation: of residual networks: "relu" or "gelu"; relu is DALL-E's.
        padding: of residual networks, around images and features: "zeros", the default, or "replicate".
        convolutions: in a block of residual networks; 2 by default, 4 is DALL-E's.
        block_ratio: outer channels of a block of residual networks divided by its inner ones; 2 by default, 4 is
            DALL-E's.
        stem_kernel: size of the first convolution of residual networks; 3 by default, 7 is DALL-E's.
        multipliers: of the width at each resolution of vqgan networks, the finest first; the first of 1, 2, 2, 4, 4, 8
            by default.
        attention: resolutions of vqgan networks with attention, the finest is 0; the coarsest by default.
        groups: of the normalisations of vqgan networks; 32 by default.
    """

    networks: Literal["residual", "vqgan"] = "residual"
    stride: int = 4
    width: int = 64
    depth: int = 1
    patch: int = 2
    last_kernel: int = 1
    pooling: Literal["max", "average"] | None = None
    activation: Literal["relu", "gelu"] | None = None
    padding: Literal["zeros", "replicate"] | None = None
    convolutions: int | None = None
    block_ratio: int | None = None
    stem_kernel: int | None = None
    multipliers: tuple[int, ...] | None = None
    attention: tuple[int, ...] | None = None
    groups: int | None = None

    @property
    def spec(self) -> Spec:
        """Of a member of `NETWORKS`."""
        shared = {"width": self.width, "depth": self.depth, "patch": self.patch, "last_kernel": self.last_kernel}
        residual = effective(
            self.networks == "residual",
            "on vqgan networks",
            pooling=(self.pooling, "max"),
            activation=(self.activation, "relu"),
            padding=(self.padding, "zeros"),
            convolutions=(self.convolutions, 2),
            block_ratio=(self.block_ratio, 2),
            stem_kernel=(self.stem_kernel, 3),
        )
        levels = max(1, self.stride // self.patch).bit_length()
        vqgan = effective(
            self.networks == "vqgan",
            "on residual networks",
            multipliers=(self.multipliers, MULTIPLIERS[:levels]),
            attention=(self.attention, (levels - 1,)),
            groups=(self.groups, 32),
        )
        if residual:
            return {"kind": "residual", "stride": self.stride, **shared, **residual}
        if len(vqgan["multipliers"]) != levels or self.patch << (levels - 1) != self.stride:
            given = f"stride {self.stride}, patch {self.patch} and multipliers {vqgan['multipliers']}"
            raise SmaltiError(f"stride must be patch times 2 for each of the multipliers but the first, not {given}")
        return {"kind": "vqgan", **shared, **vqgan}


@dataclass(frozen=True, kw_only=True)
class Common:
    """What these and the recipes of other quantizers have in common.

    Attributes:
        data: what to train on, and to measure with.
        preprocessing: of the images.
        preset: defaults for images of a size: small, photo64, photo128 or photo256; auto takes that for --image_size.
        networks: around the bottleneck.
        likelihood: p(x|z).
        optimizer: AdamW with warm-up and cosine, averaged weights.
        augment: none, flip, flip_shift, or, for photographs, crop: windows of random place, size and form, and flips.
        crop_area: of the smallest window, as a share of the largest one's; 0.5 by default.
        photo: further terms of the loss, for photographs.
        corruption: the noise that the model learns to remove.
        steps: optimiser steps.
        minutes: how long a new run may take, in place of steps.
        batch_size: images per batch.
    """

    data: DataConfig = DataConfig(data="emoji")
    preprocessing: Preprocessing = Preprocessing()
    preset: Literal["auto", PresetName] = "auto"
    networks: Around = Around()
    likelihood: LikelihoodName = "gaussian"
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=4e-3, warmup=100, ema_decay=0.998)
    augment: Augment = "flip_shift"
    crop_area: float | None = None
    photo: PhotoConfig = PhotoConfig()
    corruption: Corruption = Corruption()
    steps: int = 2400
    minutes: float | None = None
    batch_size: int = 32

    def experiment(self, bottleneck: Spec, loss: LossConfig = LossConfig()) -> Experiment:
        """The training of an autoencoder with this bottleneck."""
        model = AutoencoderConfig(
            networks=self.networks.spec,
            bottleneck=bottleneck,
            likelihood={"kind": self.likelihood},
            preprocessing=self.preprocessing,
            corruption=self.corruption,
        )
        return Experiment(
            data=self.data,
            model=model,
            loss=loss,
            optimizer=self.optimizer,
            photo=self.photo,
            augment=self.augment,
            crop_area=self.crop_area,
        )


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """A codebook of vectors, of which the nearest is taken.

    Attributes:
        codebook_size: K, of each codebook.
        code_dim: D, of a code vector; of `pq` D of all groups together.
        learning: "ema" (moving averages), "gradient" (codebook loss) or "simvq" (a matrix, by codebook loss).
        estimator: how the gradient passes the nearest code vector.
        decay: of the moving averages, which restarts need too; 0.99 by default.
        restart_below: restart codes whose share is below this fraction of 1/K; 0 is never.
        start: first values of the codebook: k-means of the first batch, or random.
        compare: what makes a vector the nearest: distance, direction (l2-normalised codes), or the inner product.
        commitment_weight: of the term that keeps features near their code.
    """

    codebook_size: int = 512
    code_dim: int = 16
    learning: Literal["ema", "gradient", "simvq"] = "ema"
    estimator: Literal["straight_through", "rotation", "nsvq", "diveq"] = "straight_through"
    decay: float | None = None
    restart_below: float = 0.3
    start: Literal["kmeans", "random"] = "kmeans"
    compare: Literal["distance", "direction", "product"] = "distance"
    commitment_weight: float = 0.25

    @property
    def loss(self) -> LossConfig:
        """The weights of the loss."""
        return LossConfig(commitment_weight=self.commitment_weight)

    @property
    def quantizer(self) -> dict[str, Any]:
        """Spec of a `VectorQuantizer`."""
        options = {name: value for name, value in vars(self).items() if name not in ("decay", "commitment_weight")}
        averaged = self.learning == "ema" or self.restart_below > 0
        average = effective(averaged, "without learning ema or restart_below", decay=(self.decay, 0.99))
        return {"kind": "vector_quantizer", **options, **average}


@dataclass(frozen=True, kw_only=True)
class Scalars:
    """A code made of a few levels in each channel.

    Attributes:
        levels: of each channel; their product is K.
        variant: where the levels lie: as in the paper and published weights, as the paper's listing has them to the
            letter, or evenly around 0.
    """

    levels: tuple[int, ...] = (8, 8, 8)
    variant: Literal["paper", "listing", "symmetric"] = "paper"

    @property
    def quantizer(self) -> dict[str, Any]:
        """Spec of an `FSQ`."""
        return {"kind": "fsq", **vars(self), "levels": tuple(self.levels)}


@recipe(BY_SIZE)
def ae(common: Common, *, latent_channels: int = 16) -> Experiment:
    """Autoencoder: no bottleneck but the number of channels; reconstructs best, cannot be sampled from.

    Args:
        latent_channels: channels of the latents at each grid position.
    """
    return common.experiment({"kind": "identity", "channels": latent_channels})


@recipe(BY_SIZE)
def vae(common: Common, *, latent_channels: int = 16, beta: float = 1.0, beta_warmup: float = 0.0) -> Experiment:
    """Variational autoencoder: Gaussian latents, reparameterised.

    Args:
        latent_channels: channels of the latents at each grid position.
        beta: weight of the KL; 1 trains the ELBO.
        beta_warmup: the part of the run over which beta rises from 0.
    """
    loss = LossConfig(beta=ramp(beta, beta_warmup))
    return common.experiment({"kind": "gaussian", "channels": latent_channels}, loss)


@recipe(BY_SIZE)
def vqvae(common: Common, vectors: Vectors) -> Experiment:
    """VQ-VAE: the nearest of K code vectors, with a straight-through gradient."""
    return common.experiment(vectors.quantizer, vectors.loss)


@recipe(BY_SIZE, {"perceptual": "effnet", "adversarial_weight": 0.1})
def vqgan(common: Common, vectors: Vectors) -> Experiment:
    """VQ-VAE for photographs: a perceptual and an adversarial term beside the likelihood; needs smalti[perceptual]."""
    return common.experiment(vectors.quantizer, vectors.loss)


@recipe(BY_SIZE)
def dvae(
    common: Common,
    *,
    codebook_size: int = 512,
    code_dim: int = 16,
    logits: Literal["distance", "convolution"] = "distance",
    estimator: Estimator = "gumbel_softmax",
    first_temperature: float | None = None,
    last_temperature: float | None = None,
    temperature_portion: float | None = None,
    sharpness: float | None = None,
    restart_below: float | None = None,
    beta: float = 1.0,
    beta_warmup: float = 0.0,
) -> Experiment:
    """dVAE, the first stage of DALL-E: categorical latents, relaxed by Gumbel-Softmax while training.

    Args:
        codebook_size: K.
        code_dim: D, of a code vector.
        logits: "distance" to the code vectors, or DALL-E's 1x1 "convolution".
        estimator: how the gradient passes the sampling of a code.
        first_temperature: of the relaxation, at the first step; 1 by default.
        last_temperature: of the relaxation, where the cosine ends; 1/16 by default.
        temperature_portion: the part of the run that the cosine takes; 0.7 by default.
        sharpness: nats by which a feature prefers its code at the start, of distance logits; 2 by default.
        restart_below: restart codes whose share is below this fraction of 1/K, of distance logits; 0 is never, 0.3 the
            default.
        beta: weight of the KL; 1 trains the ELBO, 6.6 is DALL-E's.
        beta_warmup: the part of the run over which beta rises from 0.
    """
    temperatures = (first_temperature, 1.0), (last_temperature, 1 / 16), (temperature_portion, 0.7)
    by_distance = {"sharpness": (sharpness, 2.0), "restart_below": (restart_below, 0.3)}
    bottleneck = {"kind": "categorical", "codebook_size": codebook_size, "code_dim": code_dim, "logits": logits}
    bottleneck |= {"estimator": estimator, **relaxation(estimator, "cosine", *temperatures)}
    bottleneck |= effective(logits == "distance", "without logits distance", **by_distance)
    if logits == "convolution":
        bottleneck["in_channels"] = 2 * code_dim
    return common.experiment(bottleneck, LossConfig(beta=ramp(beta, beta_warmup)))


def ramp(beta: float, warmup: float) -> Schedule:
    """The KL's weight, risen from 0 over a part of the run."""
    effective(beta != 0, "at beta 0", beta_warmup=(warmup or None, 0.0))
    return linear(0.0, beta, warmup) if warmup else constant(beta)


def relaxation(
    estimator: Estimator, kind: Literal["cosine", "exponential"], first: Choice, last: Choice, portion: Choice
) -> dict[str, Schedule]:
    """The temperature, as an option of a `Categorical` bottleneck; nothing for an estimator that has none."""
    if estimator == "reinforce":
        options = {"first_temperature": first, "last_temperature": last, "temperature_portion": portion}
        return effective(False, "on reinforce, which relaxes nothing", **options)
    start, end = (default if given is None else given for given, default in (first, last))
    way = effective(start != end, "where the temperature stays as it is", temperature_portion=portion)
    moving = Schedule(kind=kind, start=start, end=end, portion=way.get("temperature_portion", 1.0))
    return {"temperature": moving if way else constant(end)}
