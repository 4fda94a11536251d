"""The VAE of Burda et al. on dynamically binarised MNIST, shortened from 3,280 epochs to 200.

    smalti train mnist_vae --data DIR --out runs/mnist
    smalti evaluate runs/mnist --data DIR --importance_samples 5000

DIR holds MNIST's four idx files. Published: 86.76 nats (k = 1, one layer, full schedule; arXiv:1509.00519, table 1).
Measured here, with command and time: experiments/mnist_vae.md.
"""

from typing import Literal

from smalti.data.config import DataConfig
from smalti.images.preprocessing import Corruption
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.recipes.autoencoders import ramp
from smalti.recipes.flat import recipe
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig


@recipe(steps=110_000, batch_size=100, log_every=550, sample_every=11_000, checkpoint_every=5_500, validate_every=5_500)
def mnist_vae(
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3, weight_decay=0.0, clip_norm=0.0, ema_decay=0.9995),
    corruption: Corruption = Corruption(),
    *,
    data: DataConfig,
    latent_channels: int = 50,
    activation: Literal["relu", "tanh"] = "relu",
    beta_warmup: float = 0.05,
) -> Experiment:
    """VAE 784-200-200-50 on dynamically binarised MNIST.

    110,000 steps are 200 epochs of 55,000 images at batch 100.

    Args:
        optimizer: Adam, averaged weights.
        corruption: the noise that the model learns to remove.
        data: a folder with MNIST's idx files.
        latent_channels: size of the latent vector.
        activation: of the hidden layers; the paper's is tanh, which is worse after 200 epochs.
        beta_warmup: the part of the run over which the weight of the KL rises from 0 to 1.
    """
    model = AutoencoderConfig(
        networks={"kind": "mlp", "image_size": 28, "hidden": (200, 200), "activation": activation},
        bottleneck={"kind": "gaussian", "channels": latent_channels},
        likelihood={"kind": "bernoulli"},
        preprocessing=Preprocessing(image_size=28, channels=1, binarize="dynamic"),
        corruption=corruption,
    )
    return Experiment(data=data, model=model, loss=LossConfig(beta=ramp(1.0, beta_warmup)), optimizer=optimizer)
