"""The members of the family, by name."""

from smalti.configs import Family
from smalti.priors.base import CausalPrior, Conditions, MaskedPrior, Prior, Stepper
from smalti.priors.masked_pixelcnn import MaskedPixelCNN
from smalti.priors.maskgit import MaskGIT
from smalti.priors.pixelcnn import PixelCNN
from smalti.priors.pixelsnail import PixelSNAIL
from smalti.priors.tables import Histogram, Uniform
from smalti.priors.transformer import Transformer

PRIORS: Family[Prior] = Family(
    "prior",
    Prior,
    uniform=Uniform,
    histogram=Histogram,
    masked_pixelcnn=MaskedPixelCNN,
    pixelcnn=PixelCNN,
    pixelsnail=PixelSNAIL,
    transformer=Transformer,
    maskgit=MaskGIT,
)

__all__ = [
    "PRIORS", "CausalPrior", "Conditions", "Histogram", "MaskGIT", "MaskedPixelCNN", "MaskedPrior", "PixelCNN",
    "PixelSNAIL", "Prior", "Stepper", "Transformer", "Uniform",
]  # fmt: skip
