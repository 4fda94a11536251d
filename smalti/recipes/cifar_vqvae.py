"""The VQ-VAE that its authors show on CIFAR-10: 10,000 updates; and the same with FSQ.

    smalti train cifar_vqvae --data 'DIR/cifar10-*.parquet' --out runs/cifar
    smalti evaluate runs/cifar --data 'DIR/cifar10-*.parquet'

Published (google-deepmind/sonnet, examples/vqvae_example.ipynb): reconstruction error 0.056 in units of the data's
variance, perplexity 326, both of single training batches. Measured here: experiments/cifar_vqvae.md.
"""

from dataclasses import dataclass
from typing import Any

from smalti.configs import Spec
from smalti.data.config import DataConfig
from smalti.images.preprocessing import Corruption
from smalti.models.config import AutoencoderConfig
from smalti.recipes.autoencoders import Scalars, Vectors
from smalti.recipes.flat import recipe
from smalti.training.experiment import Experiment, LossConfig, OptimizerConfig

VARIANCE = 0.06327  # of CIFAR-10's pixels in units of [0, 1]: the example divides its squared error by it
RUN: dict[str, Any] = {"steps": 10_000}


@dataclass(frozen=True, kw_only=True)
class Example:
    """The authors' example without its bottleneck.

    Attributes:
        data: CIFAR-10, for example as parquet files.
        width: channels of the networks.
        residual_channels: channels inside a residual block.
        optimizer: Adam.
        corruption: the noise that the model learns to remove.
    """

    data: DataConfig
    width: int = 128
    residual_channels: int = 32
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-4, decay_learning_rate=False, weight_decay=0.0, clip_norm=0.0, ema_decay=0.0
    )
    corruption: Corruption = Corruption()

    def experiment(self, bottleneck: Spec, loss: LossConfig = LossConfig()) -> Experiment:
        """The training of an autoencoder with this bottleneck."""
        networks = {"stride": 4, "width": self.width, "depth": 2, "residual_channels": self.residual_channels}
        model = AutoencoderConfig(
            networks={"kind": "strided", **networks},
            bottleneck=bottleneck,
            # nats per dimension are then the example's squared error / VARIANCE, plus a constant
            likelihood={"kind": "gaussian", "scale": (VARIANCE / 2) ** 0.5},
            corruption=self.corruption,
        )
        return Experiment(data=self.data, model=model, loss=loss, optimizer=self.optimizer)


@recipe(**RUN)
def cifar_vqvae(
    example: Example, vectors: Vectors = Vectors(code_dim=64, start="random", restart_below=0.0)
) -> Experiment:
    """VQ-VAE of the authors' example: K = 512, D = 64, 8x8 codes, moving averages, no dead-code restart."""
    return example.experiment(vectors.quantizer, vectors.loss)


@recipe(**RUN)
def cifar_fsq(example: Example, scalars: Scalars) -> Experiment:
    """The authors' example with finite scalar quantization instead of a codebook."""
    return example.experiment(scalars.quantizer)
