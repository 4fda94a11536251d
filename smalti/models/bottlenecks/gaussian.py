"""The bottleneck of a VAE."""

import math

import torch
from torch import Tensor

from smalti.models.bottlenecks.base import BottleneckOutput, GaussianPosterior, InWords, PosteriorSample
from smalti.ops import randomness
from smalti.ranges import Size


class Gaussian(GaussianPosterior):
    """Diagonal Gaussian posterior with a standard normal prior: the bottleneck of a VAE [1].

    Shapes:
        features  (B, 2*D, h, w)  mean, then ln variance (clamped to [-20, 20])
        latents   (B, D, h, w)    training: mean + sigma * noise, [1] eq. 10; eval mode: the mean
        kl        (B,)            nats per image, closed form, [1] appendix B; gradient reaches mean and variance

    Args:
        channels: D.

    References:
        [1] Kingma, Welling. Auto-Encoding Variational Bayes. 2013. arXiv:1312.6114
    """

    how_gradients_pass = "reparameterisation: the noise is an input, the latents a smooth function of it"
    in_words = InWords(
        features="the mean and the ln variance of a Gaussian at each position",
        latent_space="continuous, kept near p(z) = N(0, I) by the KL",
        latents="a sample, mean + deviation x noise; the mean where it is used",
        loss="distortion + KL(q(z given x), p(z)): minus the ELBO, where the weight of the KL is 1",
        purpose="generation, and a smooth latent space to move in",
        generation="yes: z from p(z), decoded; on a grid each position is sampled without its neighbours",
        gradient_stop="at the sampling of z, were z a number without a history",
    )

    def __init__(self, *, channels: Size):
        super().__init__()
        self.in_channels, self.out_channels = 2 * channels, channels

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the ln variance of q(z|x), each (B, D, h, w)."""
        mean, log_variance = features.chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 20)

    def _forward(self, features: Tensor) -> BottleneckOutput:
        mean, log_variance = self.posterior(features)
        noise = randomness.normal(*mean.shape, like=mean) if self.training else 0.0
        latents = mean + (log_variance / 2).exp() * noise
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2
        return BottleneckOutput(latents=latents, codes=None, kl=kl, penalties={})

    def _sample_posterior(self, features: Tensor, temperature: float) -> PosteriorSample:
        mean, log_variance = self.posterior(features)
        noise = temperature * torch.randn_like(mean)
        latents = mean + (log_variance / 2).exp() * noise
        log_prior = -(latents.square() + math.log(2 * math.pi)) / 2
        log_posterior = -(noise.square() + math.log(2 * math.pi) + log_variance) / 2
        return PosteriorSample(latents=latents, log_ratio=(log_prior - log_posterior).flatten(1).sum(1))

    def _sample_prior(self, num: int, h: int, w: int, temperature: float) -> Tensor:
        return temperature * torch.randn(num, self.out_channels, h, w)
