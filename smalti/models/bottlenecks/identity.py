"""The bottleneck of a plain autoencoder: none."""

from torch import Tensor

from smalti.errors import SmaltiError
from smalti.models.bottlenecks.base import Bottleneck, BottleneckOutput, InWords, PosteriorSample
from smalti.ranges import Size

NO_PRIOR = "an autoencoder (identity bottleneck) has no p(z): there is no ELBO; use gaussian or a discrete one"


class Identity(Bottleneck):
    """Latents are the features: a point mass without a prior, so an AE [1] has a rate of 0 and no ELBO.

    Shapes:
        features  (B, D, h, w)
        latents   (B, D, h, w)  the same values; gradients pass plainly

    Args:
        channels: D.

    References:
        [1] Hinton, Salakhutdinov. Reducing the Dimensionality of Data with Neural Networks. Science, 2006.
    """

    has_prior = False
    random_posterior = False
    how_gradients_pass = "plainly"
    in_words = InWords(
        features="a vector at each position",
        latent_space="continuous, of no particular shape",
        latents="the features themselves",
        loss="distortion alone",
        purpose="features of images, and fewer numbers where there are fewer of them than of pixels; denoising",
        generation="no: there is no p(z), and nothing taught the decoder what lies between the latents of images",
    )

    def __init__(self, *, channels: Size):
        super().__init__()
        self.in_channels = self.out_channels = channels

    def _forward(self, features: Tensor) -> BottleneckOutput:
        return BottleneckOutput(latents=features, codes=None, kl=features.new_zeros(features.shape[0]), penalties={})

    def _sample_posterior(self, features: Tensor, temperature: float) -> PosteriorSample:
        raise SmaltiError(NO_PRIOR)

    def _sample_prior(self, num: int, h: int, w: int, temperature: float) -> Tensor:
        raise SmaltiError(NO_PRIOR)
