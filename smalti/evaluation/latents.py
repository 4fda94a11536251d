"""Gaussian posteriors over a split: which latent dimensions are in use, and what all posteriors together look like."""

from torch import Tensor

from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import Bottleneck, GaussianPosterior
from smalti.modes import using

ACTIVE = 0.01  # of the variance of the posterior mean, in units of p(z)'s [1, section 5.2]


class LatentStatistics:
    """Moments of q(z|x) over images of one size, summed batch by batch; of another posterior there are none.

    A latent dimension, or unit, is one channel at one position of the grid.

    - active_units, active_unit_share: units whose posterior mean has a variance above 0.01 over the images [1]; the
      others hold p(z) whatever the image is, and the decoder has learnt to ignore them;
    - aggregate_kl_nats: KL(N(m, v) || p(z)), summed over the units, where m and v are the moments of a unit under the
      aggregate posterior q(z) = E_x q(z|x): 0 when samples from p(z) look to the decoder, unit by unit, as real latents
      do. KL(q(z) || p(z)) is at least that: it adds the units' shapes and their dependence;
    - information_bound_nats: rate - aggregate_kl_nats. Since I(x; z) = rate - KL(q(z) || p(z)) [2], no more than this
      many nats of the rate tell images apart.

    References:
        [1] Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. 2015. arXiv:1509.00519
        [2] Hoffman, Johnson. ELBO surgery: yet another way to carve up the variational evidence lower bound. 2016.
    """

    def __init__(self, bottleneck: Bottleneck | None):
        self.bottleneck = bottleneck if isinstance(bottleneck, GaussianPosterior) else None
        self.num_images = 0
        self.sums: list[Tensor] = []  # of the mean, its square, the variance and the ln variance, each (D, h, w)

    def add(self, features: Tensor) -> None:
        """Count the posteriors of a batch of features (B, in_channels, h, w)."""
        if self.bottleneck is None:
            return
        mean, log_variance = (moment.double() for moment in self.bottleneck.posterior(features.float()))
        sums = [moment.sum(0) for moment in (mean, mean.square(), log_variance.exp(), log_variance)]
        self.sums = [old + new for old, new in zip(self.sums, sums, strict=True)] if self.sums else sums
        self.num_images += len(features)

    def _moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, square, variance, log_variance = (total / self.num_images for total in self.sums)
        return mean, (square - mean.square()).clamp(min=0), variance, log_variance

    @property
    def activity(self) -> Tensor:
        """The variance of the posterior mean over the images, (D, h, w)."""
        return self._moments()[1]

    def metrics(self) -> dict[str, float]:
        """The numbers above; none where the posterior is no Gaussian."""
        if not self.sums:
            return {}
        mean, activity, variance, log_variance = self._moments()
        rate = (mean.square() + activity + variance - 1 - log_variance).sum().item() / 2
        spread = activity + variance  # of the aggregate posterior
        aggregate = (mean.square() + spread - 1 - spread.log()).sum().item() / 2
        active = int((activity > ACTIVE).sum())
        return {
            "active_units": active,
            "active_unit_share": active / activity.numel(),
            "aggregate_kl_nats": aggregate,
            "information_bound_nats": rate - aggregate,
        }


def latent_statistics(model: Autoencoder, images: Tensor, batch_size: int = 64) -> LatentStatistics:
    """The statistics of images (B, C, H, W) of the size that the model was trained on."""
    statistics = LatentStatistics(model.bottleneck)
    with using(model) as still:
        for batch in images.split(batch_size):
            statistics.add(still.features(batch.to(model.device)))
    return statistics
