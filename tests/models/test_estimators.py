"""Gradient estimators against exact gradients by enumeration, and against what their papers promise."""

import pytest
import torch

from smalti.models.bottlenecks.estimators import (
    CATEGORICAL,
    NEAREST,
    rotate,
    sample_one_hot,
)
from smalti.ops.gumbel_noise import standard_gumbel

DRAWS = 40_000
LOGITS = torch.tensor([[0.8, -0.3, 0.1, -1.0]])


def linear(weights):
    return weights @ torch.tensor([1.0, -2.0, 0.5, 3.0])


def quadratic(weights):
    matrix = torch.tensor([[1.0, 0.3, -2.0, 0.5], [0.0, 2.0, 1.0, 0.0], [1.5, -1.0, 0.0, 0.2], [0.7, 0.0, 0.0, -1.0]])
    return (weights @ matrix * weights).sum(1) + linear(weights)


def exact(function):
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(1)[0] * function(torch.eye(4))).sum().backward()
    return logits.grad[0]


def estimates(name, function, temperature):
    torch.manual_seed(0)
    logits = LOGITS.repeat(DRAWS, 1).requires_grad_()
    weights = CATEGORICAL[name](logits, torch.tensor(temperature))
    if name == "reinforce":
        (function(weights) * (weights * logits.log_softmax(1)).sum(1)).sum().backward()
    else:
        function(weights).sum().backward()
    return logits.grad


def error(found, function):
    """How many standard errors the mean is away from the exact gradient, at most."""
    return ((found.mean(0) - exact(function)) / (found.std(0) / DRAWS**0.5 + 1e-6)).abs().max()


@pytest.mark.parametrize("name", sorted(set(CATEGORICAL) - {"gumbel_softmax"}))
def test_what_goes_forward_is_a_draw_from_the_softmax(name):
    torch.manual_seed(0)
    weights = CATEGORICAL[name](LOGITS.repeat(DRAWS, 1), torch.tensor(0.7))
    assert torch.allclose(weights.sort(1).values[:, -1], torch.ones(()), atol=1e-5)
    assert (weights.mean(0) - LOGITS.softmax(1)[0]).abs().max() < 0.015


def test_reinforce_has_no_bias():
    assert error(estimates("reinforce", quadratic, 1.0), quadratic) < 4.5


def test_straight_through_has_no_bias_where_the_loss_is_linear_and_some_where_it_is_not():
    assert error(estimates("straight_through", linear, 1.0), linear) < 4.5
    assert error(estimates("straight_through", quadratic, 1.0), quadratic) > 20


def test_reinmax_has_no_bias_where_the_loss_is_quadratic():
    """Second order: the promise of arXiv:2304.08612."""
    assert error(estimates("reinmax", quadratic, 1.0), quadratic) < 4.5


def test_gumbel_rao_has_the_mean_of_straight_through_gumbel_and_less_variance():
    plain, rao = (estimates(name, quadratic, 0.5) for name in ("gumbel_straight_through", "gumbel_rao"))
    distance = (plain.mean(0) - rao.mean(0)) / ((plain.var(0) + rao.var(0)) / DRAWS).sqrt()
    assert distance.abs().max() < 4.5
    assert rao.var(0).sum() < 0.8 * plain.var(0).sum()


def test_a_low_temperature_takes_the_bias_of_gumbel_softmax():
    def bias(temperature):
        return (estimates("gumbel_softmax", quadratic, temperature).mean(0) - exact(quadratic)).norm()

    assert bias(0.1) < 0.35 * bias(2.0)


def test_extreme_logits_give_finite_gradients():
    for name, estimator in CATEGORICAL.items():
        logits = torch.tensor([[0.0, -500.0, 300.0], [1e4, -1e4, 0.0]]).requires_grad_()
        weights = estimator(logits, torch.tensor(0.1))
        (weights * torch.arange(3.0)).sum().backward() if weights.requires_grad else None
        assert weights.isfinite().all(), name
        assert logits.grad is None or logits.grad.isfinite().all(), name


def test_draws_do_not_depend_on_the_size_of_the_noise_tensor():
    noise = standard_gumbel(torch.empty(100_000))
    assert noise.isfinite().all()
    assert sample_one_hot(torch.tensor([[50.0, 0.0]])).tolist() == [[1.0, 0.0]]


# ------------------------------------------------------------------ nearest code vectors


@pytest.mark.parametrize("name", ["straight_through", "rotation"])
def test_what_goes_forward_is_the_code_vector(name):
    features, quantized = torch.randn(20, 5), torch.randn(20, 5)
    torch.testing.assert_close(NEAREST[name](features, quantized), quantized)


def test_rotation_turns_gradients_as_it_turns_features():
    """The map is linear in the feature, takes it to its code vector, and keeps angles: arXiv:2410.06424, section 4."""
    torch.manual_seed(0)
    features, quantized = torch.randn(1, 5, requires_grad=True), torch.randn(1, 5)
    matrix = torch.stack([torch.autograd.grad(rotate(features, quantized)[0, i], features)[0][0] for i in range(5)])
    torch.testing.assert_close(matrix @ features[0], quantized[0], rtol=1e-4, atol=1e-5)
    scale = quantized.norm() / features.detach().norm()
    torch.testing.assert_close(matrix @ matrix.T, scale**2 * torch.eye(5), rtol=1e-4, atol=1e-5)
    assert torch.linalg.det(matrix) > 0


@pytest.mark.parametrize("name", ["nsvq", "diveq"])
def test_noise_substitution_keeps_the_distance_and_teaches_both_sides(name):
    torch.manual_seed(0)
    features, quantized = torch.randn(50, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    latents = NEAREST[name](features, quantized)
    torch.testing.assert_close(
        (latents - features).norm(dim=1), (quantized - features).norm(dim=1), rtol=1e-3, atol=1e-4
    )
    latents.square().sum().backward()
    assert features.grad.abs().sum() > 0 and quantized.grad.abs().sum() > 0


def test_diveq_lands_close_to_the_code_vector():
    features, quantized = torch.randn(50, 8), torch.randn(50, 8)
    off = (NEAREST["diveq"](features, quantized) - quantized).norm(dim=1) / (quantized - features).norm(dim=1)
    assert off.max() < 0.15
