"""The members of the family, by name."""

from smalti.priors.base import Histogram, Prior, Stepper, Uniform
from smalti.priors.pixelcnn import PixelCNN
from smalti.priors.transformer import Transformer

PRIORS: dict[str, type[Prior]] = {
    "uniform": Uniform,
    "histogram": Histogram,
    "pixelcnn": PixelCNN,
    "transformer": Transformer,
}

__all__ = ["PRIORS", "Histogram", "PixelCNN", "Prior", "Stepper", "Transformer", "Uniform"]
