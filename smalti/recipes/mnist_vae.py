"""The VAE of Burda et al. on dynamically binarised MNIST, shortened from 3,280 epochs to 200.

    smalti train mnist_vae --data DIR --out runs/mnist
    smalti evaluate runs/mnist --data DIR --importance_samples 5000

DIR holds MNIST's four idx files. Published: 86.76 nats (k = 1, one layer, full schedule; arXiv:1509.00519, table 1).
Measured here, with command and time: experiments/mnist_vae.md.
"""

from smalti.data.config import DataConfig
from smalti.images.preprocessing import Preprocessing
from smalti.recipes.autoencoders import ramp
from smalti.recipes.flat import recipe
from smalti.recipes.mlp_vae import Vector
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig

BINARY = Preprocessing(image_size=28, channels=1, binarize="dynamic")


@recipe(steps=110_000, batch_size=100, log_every=550, sample_every=11_000, checkpoint_every=5_500, validate_every=5_500)
def mnist_vae(
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-3, weight_decay=0.0, clip_norm=0.0, ema_decay=0.9995),
    vector: Vector = Vector(latent_channels=50, hidden=(200, 200)),
    *,
    data: DataConfig,
    beta_warmup: float = 0.05,
) -> Experiment:
    """VAE 784-200-200-50 on dynamically binarised MNIST.

    110,000 steps are 200 epochs of 55,000 images at batch 100. The paper's activation is tanh, which is worse after 200
    epochs.

    Args:
        data: a folder with MNIST's idx files.
        beta_warmup: the part of the run over which the weight of the KL rises from 0 to 1.
    """
    model = vector.model(BINARY, "bernoulli")
    return Experiment(data=data, model=model, loss=LossConfig(beta=ramp(1.0, beta_warmup)), optimizer=optimizer)
