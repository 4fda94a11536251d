"""The first PixelCNN on dynamically binarised MNIST, without a tokenizer, in 8 epochs.

    smalti train mnist_pixelcnn --data DIR --out runs/mnist_pixelcnn
    smalti evaluate runs/mnist_pixelcnn --data DIR

DIR holds MNIST's four idx files. Published: 81.45 nats after 457 epochs (this network in
EugenHotaj/pytorch-generative); 81.30 (arXiv:1601.06759). Measured here: experiments/mnist_pixelcnn.md.
For so few epochs neither the batch and the learning rate (256; 1e-3, times 0.999977 a step) nor the first weights are
the published ones.
"""

from smalti.data.config import DataConfig
from smalti.priors.config import PixelLevels, PriorConfig
from smalti.recipes.flat import recipe
from smalti.training.experiment import OptimizerConfig, PriorExperiment


@recipe(steps=13_750, log_every=275, sample_every=3_438, checkpoint_every=1_375, validate_every=1_375)
def mnist_pixelcnn(
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=2e-3, warmup=50, betas=(0.9, 0.99), weight_decay=0.0, muon_rate=1.5
    ),
    *,
    data: DataConfig,
    channels: int = 32,
    layers: int = 15,
) -> PriorExperiment:
    """PixelCNN (7x7, then 15 residual blocks) on binary pixels of MNIST.

    13,750 steps are 8 epochs of 55,000 images at batch 32.

    Args:
        optimizer: Muon for the kernels of the convolutions, AdamW for the rest.
        data: a folder with MNIST's idx files.
        channels: of the residual stream.
        layers: residual blocks.
    """
    prior = {"kind": "masked_pixelcnn", "code_dim": 1, "channels": channels, "layers": layers}
    codes = PixelLevels(image_size=28, channels=1, levels=2).codes
    return PriorExperiment(data=data, model=PriorConfig(prior=prior, **codes), optimizer=optimizer)
