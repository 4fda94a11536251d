"""Active units and the aggregate posterior, against numpy and against posteriors whose numbers are known."""

import math

import numpy as np
import pytest
import torch

from smalti.evaluation.autoencoders import evaluate
from smalti.evaluation.latents import LatentStatistics
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import Gaussian, Identity
from smalti.models.config import AutoencoderConfig, Preprocessing


def statistics(mean, log_variance, batch_size=7):
    found = LatentStatistics(Gaussian(channels=mean.shape[1]))
    for batch in torch.cat([mean, log_variance], dim=1).split(batch_size):
        found.add(batch)
    return found


def test_numbers_equal_the_numpy_reference_whatever_the_batches():
    torch.manual_seed(0)
    scale = torch.tensor([0.0, 0.05, 0.2, 2.0]).view(1, -1, 1, 1)
    mean, log_variance = scale * torch.randn(50, 4, 2, 3) + scale, -torch.rand(50, 4, 2, 3) * 3
    m, v = mean.double().numpy(), np.exp(log_variance.double().numpy())
    activity, aggregate, rate, active = np.empty(m.shape[1:]), 0.0, 0.0, 0
    for unit in np.ndindex(m.shape[1:]):
        means, variances = m[:, *unit], v[:, *unit]
        activity[unit] = means.var()
        active += means.var() > 0.01
        spread = means.var() + variances.mean()
        aggregate += 0.5 * (means.mean() ** 2 + spread - 1 - math.log(spread))
        rate += np.mean([0.5 * (a * a + b - 1 - math.log(b)) for a, b in zip(means, variances, strict=True)])
    for batch_size in (7, 50):
        found = statistics(mean, log_variance, batch_size)
        np.testing.assert_allclose(found.activity.numpy(), activity, atol=1e-12)
        assert found.metrics() == pytest.approx(
            {
                "active_units": active,
                "active_unit_share": active / 24,
                "aggregate_kl_nats": aggregate,
                "information_bound_nats": rate - aggregate,
            },
            rel=1e-6,
        )
    assert 6 <= active <= 18


def test_a_posterior_that_is_the_prior_says_nothing_of_the_image():
    metrics = statistics(torch.zeros(9, 2, 2, 2), torch.zeros(9, 2, 2, 2)).metrics()
    assert metrics == {
        "active_units": 0,
        "active_unit_share": 0.0,
        "aggregate_kl_nats": 0.0,
        "information_bound_nats": 0.0,
    }


def test_an_aggregate_posterior_like_the_prior_spends_the_whole_rate_on_information():
    """Means of variance 1 - s around which each posterior has variance s: q(z) has p(z)'s moments."""
    torch.manual_seed(0)
    share = 0.25
    mean = torch.randn(4000, 1, 2, 2)
    mean = (mean - mean.mean(0)) / mean.std(0, correction=0) * (1 - share) ** 0.5
    metrics = statistics(mean, torch.full_like(mean, math.log(share))).metrics()
    assert metrics["aggregate_kl_nats"] == pytest.approx(0, abs=1e-6)
    assert metrics["information_bound_nats"] == pytest.approx(-4 / 2 * math.log(share), rel=1e-5)


def test_other_posteriors_have_no_such_numbers():
    found = LatentStatistics(Identity(channels=2))
    found.add(torch.randn(3, 2, 4, 4))
    assert found.metrics() == {}


@pytest.mark.parametrize("kind", ["identity", "gaussian"])
def test_evaluation_has_them_where_the_posterior_is_gaussian(kind, image_folder):
    torch.manual_seed(0)
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    config = AutoencoderConfig(
        networks=networks,
        bottleneck={"kind": kind, "channels": 4},
        preprocessing=Preprocessing(image_size=16),
    )
    metrics = evaluate(Autoencoder(config), str(image_folder), "all")["metrics"]
    assert ("active_units" in metrics) == (kind == "gaussian")
    if kind == "gaussian":
        bound = metrics["information_bound_nats"]
        assert bound == pytest.approx(metrics["rate_nats"] - metrics["aggregate_kl_nats"], rel=1e-5)
