"""A VAE whose latents are one vector for the whole image, fully connected: samples of p(z) are whole objects.

    smalti train mlp_vae --data emoji --out runs/whole
    smalti sample runs/whole --num 32 --out samples.png

With the grid of latents that `vae` has, p(z) takes positions as independent, and samples are textures: docs/vae.md
shows both.
"""

from dataclasses import dataclass
from typing import Literal

from smalti.data.config import Augment, DataConfig
from smalti.images.preprocessing import Corruption
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes.autoencoders import LikelihoodName, ramp
from smalti.recipes.flat import recipe
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Gaussian latents that are one vector, with a network of hidden layers on either side.

    Attributes:
        latent_channels: size of the latent vector.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        activation: of the hidden layers.
        corruption: the noise that the model learns to remove.
    """

    latent_channels: int = 32
    hidden: tuple[int, ...] = (512, 256)
    activation: Literal["relu", "tanh"] = "relu"
    corruption: Corruption = Corruption()

    def model(self, preprocessing: Preprocessing, likelihood: LikelihoodName) -> AutoencoderConfig:
        """The autoencoder of such images."""
        layers = {"hidden": tuple(self.hidden), "activation": self.activation}
        return AutoencoderConfig(
            networks={"kind": "mlp", "image_size": preprocessing.image_size, **layers},
            bottleneck={"kind": "gaussian", "channels": self.latent_channels},
            likelihood={"kind": likelihood},
            preprocessing=preprocessing,
            corruption=self.corruption,
        )


@recipe(steps=4_000, batch_size=64)
def mlp_vae(
    vector: Vector = Vector(),
    preprocessing: Preprocessing = Preprocessing(),
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, weight_decay=0.0, ema_decay=0.998),
    *,
    data: DataConfig = DataConfig(data="emoji"),
    likelihood: LikelihoodName = "gaussian",
    augment: Augment = "flip_shift",
    crop_area: float | None = None,
    beta: float = 16.0,
    beta_warmup: float = 0.1,
) -> Experiment:
    """VAE with one latent vector for the whole image, fully connected: its samples are whole objects.

    Args:
        data: what to train on, and to measure with.
        likelihood: p(x|z).
        augment: none, flip, flip_shift, or crop: windows of random place, size and form, and flips.
        crop_area: of the smallest window, as a share of the largest one's; 0.5 by default.
        beta: weight of the KL; 1 trains the ELBO, 16 gives better samples of emoji and less sharp reconstructions.
        beta_warmup: the part of the run over which beta rises from 0.
    """
    model = vector.model(preprocessing, likelihood)
    loss = LossConfig(beta=ramp(beta, beta_warmup))
    return Experiment(data=data, model=model, loss=loss, optimizer=optimizer, augment=augment, crop_area=crop_area)
