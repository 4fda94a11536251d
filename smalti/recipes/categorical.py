"""Categorical VAEs, fully connected, on MNIST and small emoji: what gradient estimators are compared on.

    smalti train mnist_categorical --data DIR --out runs/mnist_categorical

DIR holds MNIST's four idx files. Protocols and results: experiments/categorical.md.
"""

from dataclasses import dataclass
from typing import Any, Literal

from smalti.configs import effective
from smalti.data.config import DataConfig
from smalti.images.preprocessing import Corruption
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes.autoencoders import Estimator, relaxation
from smalti.recipes.flat import recipe
from smalti.schedules import constant
from smalti.training.experiment import Experiment, OptimizerConfig

ADAM = OptimizerConfig(learning_rate=5e-4, decay_learning_rate=False, weight_decay=0.0, clip_norm=0.0, ema_decay=0.0)


@dataclass(frozen=True, kw_only=True)
class Variables:
    """A few categorical variables, with a network of hidden layers on either side.

    Attributes:
        variables: categorical variables of the latents.
        classes: of each variable.
        estimator: how the gradient passes the sampling of a code.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them; none is a linear encoder and decoder.
        decoder_hidden: widths of the decoder's hidden layers, where they are others.
        learned_prior: learn a distribution for each variable; otherwise the prior is uniform.
        corruption: the noise that the model learns to remove.
    """

    variables: int = 4
    classes: int = 8
    estimator: Estimator = "reinmax"
    hidden: tuple[int, ...] = (512, 256)
    decoder_hidden: tuple[int, ...] | None = None
    learned_prior: bool = False
    corruption: Corruption = Corruption()

    def model(self, preprocessing: Preprocessing, temperature: dict[str, Any]) -> AutoencoderConfig:
        """The autoencoder of such images."""
        grid = (1, self.variables)
        layers = {"hidden": tuple(self.hidden), "decoder_hidden": self.decoder_hidden, "activation": "relu"}
        first = {"start": "small", "grey": 0.0}
        networks = {"kind": "mlp", "image_size": preprocessing.image_size, "grid": grid, **layers, **first}
        codes = {"codebook_size": self.classes, "code_dim": 0, "prior_grid": grid if self.learned_prior else None}
        bottleneck = {"kind": "categorical", "logits": "features", "estimator": self.estimator, **codes, **temperature}
        return AutoencoderConfig(
            networks=networks,
            bottleneck=bottleneck,
            likelihood={"kind": "bernoulli"},
            preprocessing=preprocessing,
            corruption=self.corruption,
        )


@recipe(steps=88_000, batch_size=100, log_every=550, sample_every=11_000, checkpoint_every=5_500, validate_every=5_500)
def mnist_categorical(
    variables: Variables,
    optimizer: OptimizerConfig = ADAM,
    *,
    data: DataConfig,
    first_temperature: float | None = None,
    last_temperature: float | None = None,
    temperature_portion: float | None = None,
    binarize: Literal["none", "dynamic", "fixed"] = "none",
) -> Experiment:
    """VAE with a few categorical variables as its latents, fully connected, on MNIST.

    88,000 steps are 160 epochs of 55,000 images at batch 100.

    Args:
        data: a folder with MNIST's idx files.
        first_temperature: of the relaxation, at the first step; 1.3 by default.
        last_temperature: of the relaxation, where its exponential decay ends; by default it stays at the first.
        temperature_portion: the part of the run that the decay takes; by default the whole.
        binarize: none (grey values as targets of the cross-entropy), dynamic, or fixed.
    """
    first = 1.3 if first_temperature is None else first_temperature
    temperatures = (first_temperature, first), (last_temperature, first), (temperature_portion, 1.0)
    temperature = relaxation(variables.estimator, "exponential", *temperatures)
    images = Preprocessing(image_size=28, channels=1, binarize=binarize)
    return Experiment(data=data, model=variables.model(images, temperature), optimizer=optimizer)


@recipe(steps=2_000, batch_size=100, sample_every=0)
def emoji_categorical(
    variables: Variables = Variables(estimator="gumbel_straight_through", hidden=(256, 128)),
    optimizer: OptimizerConfig = ADAM,
    *,
    data: DataConfig = DataConfig(data="emoji"),
    temperature: float | None = None,
) -> Experiment:
    """The same on grey emoji of 16x16 pixels: half a minute, for `smalti estimators`.

    Args:
        data: emoji, or any other images.
        temperature: of the relaxation; 0.5 by default.
    """
    relaxed = variables.estimator != "reinforce"
    chosen = effective(relaxed, "on reinforce, which relaxes nothing", temperature=(temperature, 0.5))
    fixed = {name: constant(value) for name, value in chosen.items()}
    model = variables.model(Preprocessing(image_size=16, channels=1), fixed)
    return Experiment(data=data, model=model, optimizer=optimizer)
