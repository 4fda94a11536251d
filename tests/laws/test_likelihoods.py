"""Laws of likelihoods: they are normalised, their gradients are right, their means are images."""

import math

import pytest
import torch

from conftest import own_members
from smalti.errors import SmaltiError
from smalti.models.likelihoods import LIKELIHOODS

MEMBERS = {
    "bernoulli": {},
    "gaussian": {},
    "gaussian fixed": {"scale": 0.1},
    "gaussian predicted": {"scale": "predicted"},
    "laplace": {},
    "laplace predicted": {"scale": "predicted"},
    "logit_laplace": {},
    "logistic_mixture": {"num_components": 3},
}
MEMBERS |= own_members(LIKELIHOODS)
EIGHT_BIT = [name for name in MEMBERS if name != "bernoulli"]
DENSITIES = [name for name in EIGHT_BIT if name != "logistic_mixture"]


def make(name, channels=3):
    return LIKELIHOODS[name.split()[0]](channels=channels, **MEMBERS[name])


def sample_codes(likelihood, batch=4, side=5, binary=False):
    parameters = torch.randn(batch, likelihood.num_parameters, side, side) * 0.5
    images = torch.randint(0, 256, (batch, likelihood.channels, side, side)) / 255
    return parameters, (images > 0.5).float() if binary else images


@pytest.fixture(params=MEMBERS)
def name(request):
    return request.param


def test_nll_is_per_image_and_a_sum_over_the_image(name):
    likelihood = make(name)
    parameters, images = sample_codes(likelihood, binary=name == "bernoulli")
    nll = likelihood.nll(parameters, images)
    assert nll.shape == (4,)
    halves = sum(likelihood.nll(parameters[..., part], images[..., part]) for part in (slice(0, 2), slice(2, 5)))
    torch.testing.assert_close(nll, halves, rtol=1e-4, atol=1e-3)


def test_repeating_the_batch_changes_nothing(name):
    likelihood = make(name)
    parameters, images = sample_codes(likelihood, binary=name == "bernoulli")
    twice = likelihood.nll(parameters.repeat(2, 1, 1, 1), images.repeat(2, 1, 1, 1))
    torch.testing.assert_close(likelihood.nll(parameters, images).mean(), twice.mean())


def test_mean_is_an_image(name):
    likelihood = make(name)
    parameters, images = sample_codes(likelihood)
    mean = likelihood.mean(parameters * 10)
    assert mean.shape == images.shape
    assert mean.min() >= 0 and mean.max() <= 1


def test_gradient_matches_finite_differences(name):
    likelihood = make(name, channels=1).double()
    parameters = (torch.randn(1, likelihood.num_parameters, 2, 2, dtype=torch.float64) * 0.5).requires_grad_()
    images = (torch.rand(1, 1, 2, 2, dtype=torch.float64) > 0.5).double() if name == "bernoulli" else torch.full(
        (1, 1, 2, 2), 0.3, dtype=torch.float64
    )  # fmt: skip
    assert torch.autograd.gradcheck(lambda p: -likelihood._log_prob(p, images).sum(), parameters)


def test_autocast_changes_nothing(name):
    likelihood = make(name)
    parameters, images = sample_codes(likelihood, binary=name == "bernoulli")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = likelihood.nll(parameters, images)
    assert torch.equal(cast, likelihood.nll(parameters, images))


@pytest.mark.parametrize("name", EIGHT_BIT)
@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_masses_of_the_256_levels_sum_to_one(name, spread):
    likelihood = make(name, channels=1)
    parameters = (torch.randn(1, likelihood.num_parameters, 1, 1) * spread).expand(256, -1, -1, -1)
    levels = (torch.arange(256) / 255).view(256, 1, 1, 1)
    assert (2.0 ** -likelihood.bits(parameters, levels)).sum().item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", ["logistic_mixture"])
def test_joint_mass_of_two_channels_sums_to_one(name):
    """With the channels in sequence, the joint over two channels is normalised too."""
    likelihood = LIKELIHOODS[name](channels=2, num_components=2)
    parameters = torch.randn(1, likelihood.num_parameters, 1, 1)
    first, second = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    images = torch.stack([first, second], dim=-1).view(-1, 2, 1, 1) / 255
    bits = likelihood.bits(parameters.expand(len(images), -1, -1, -1), images)
    assert (2.0**-bits).sum().item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", DENSITIES)
def test_density_integrates_to_the_mass_inside_the_range(name):
    """The density over [0, 1], integrated numerically, is the distribution's mass there: the normaliser is right."""
    likelihood = make(name, channels=1)
    parameters = torch.zeros(1, likelihood.num_parameters, 1, 1)
    count = 200_001
    points = torch.linspace(0, 1, count, dtype=torch.float64).view(count, 1, 1, 1)
    with torch.no_grad():
        density = torch.exp(likelihood._log_prob(parameters.double().expand(count, -1, -1, -1), points)).flatten()
        outer = likelihood.bits(parameters.expand(2, -1, -1, -1), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    integral = torch.trapezoid(density, dx=1 / (count - 1)).item()
    # inside [0, 1] lies everything but what the two open outer levels hold beyond the range
    half_bin = 0.5 / 255
    inner = torch.trapezoid(
        density[(points.flatten() >= half_bin) & (points.flatten() <= 1 - half_bin)], dx=1 / (count - 1)
    ).item()
    assert inner + (2.0**-outer).sum().item() == pytest.approx(1.0, abs=2e-4)
    assert integral <= 1 + 1e-6


@pytest.mark.parametrize("name", DENSITIES)
def test_bits_agree_with_the_density_where_it_is_flat(name):
    likelihood = make(name, channels=1)
    parameters = torch.full((1, likelihood.num_parameters, 1, 1), 0.3)
    image = torch.full((1, 1, 1, 1), 100 / 255)
    expected = (likelihood.nll(parameters, image) + math.log(255)).item() / math.log(2)
    assert likelihood.bits(parameters, image).item() == pytest.approx(expected, abs=0.02)


def test_logit_laplace_is_the_papers_formula():
    """f(y | mu, b) = 1 / (2 b y (1 - y)) exp(-|logit y - mu| / b), y = 0.8 x + 0.1, times dy/dx = 0.8."""
    likelihood = LIKELIHOODS["logit_laplace"](channels=1)
    mu, raw, x = 0.3, math.log(0.7), 0.6
    floor = math.log(likelihood.smallest_scale)
    b = math.exp(floor + math.log1p(math.exp(raw - floor)))
    y = 0.8 * x + 0.1
    f = 1 / (2 * b * y * (1 - y)) * math.exp(-abs(math.log(y / (1 - y)) - mu) / b) * 0.8
    parameters = torch.tensor([mu, raw]).view(1, 2, 1, 1)
    nll = likelihood.nll(parameters, torch.full((1, 1, 1, 1), x)).item()
    assert nll == pytest.approx(-math.log(f), rel=1e-5)
    assert b == pytest.approx(0.7, abs=0.011)  # far from its floor the scale is the decoder's own


def test_logit_laplace_mean_undoes_the_squeeze():
    likelihood = LIKELIHOODS["logit_laplace"](channels=1)
    y = torch.tensor(0.8 * 0.25 + 0.1)
    parameters = torch.stack([torch.logit(y), torch.tensor(0.0)]).view(1, 2, 1, 1)
    assert likelihood.mean(parameters).item() == pytest.approx(0.25, abs=1e-6)


def test_bernoulli_refuses_to_count_bits_of_grey():
    likelihood = make("bernoulli")
    parameters, images = sample_codes(likelihood)
    with pytest.raises(SmaltiError, match="binarize"):
        likelihood.bits(parameters, images)


def test_flat_backgrounds_have_a_bounded_density():
    """Half a grey level is the smallest scale: nobody wins by making white infinitely likely."""
    for name in DENSITIES:
        likelihood = make(name, channels=1)
        parameters = torch.full((1, likelihood.num_parameters, 1, 1), -50.0)
        parameters[:, 0] = 0.0
        nll = likelihood.nll(parameters, torch.full((1, 1, 1, 1), 0.5)).item()
        assert nll > -math.log(255 * 2)


def test_every_member_is_under_the_laws():
    assert {name.split()[0] for name in MEMBERS} == set(LIKELIHOODS)
