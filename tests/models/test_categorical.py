import math

import pytest
import torch

import reference
from smalti.errors import SmaltiError
from smalti.models.bottlenecks import Categorical, Gaussian
from smalti.ops.gumbel_noise import seeded_gumbel, standard_gumbel
from smalti.schedules import constant, cosine


def make(**options):
    return Categorical(**{"codebook_size": 6, "code_dim": 3, **options})


def test_noise_is_standard_gumbel():
    noise = standard_gumbel(torch.empty(400_000))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)
    below = (noise < 0).float().mean().item()
    assert below == pytest.approx(math.exp(-1), abs=0.005)  # P(g < x) = exp(-exp(-x))


@pytest.mark.parametrize("logits", ["distance", "convolution"])
def test_kl_equals_the_numpy_reference(logits):
    bottleneck = make(logits=logits, in_channels=3).eval()
    features = torch.randn(2, 3, 2, 2)
    expected = reference.categorical_kl_to_uniform(bottleneck.logits(features).detach().view(2, 4, 6).numpy())
    torch.testing.assert_close(
        bottleneck(features).kl.detach(), torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-4
    )


def test_distance_logits_are_scaled_negative_squared_distances():
    bottleneck = make().eval()
    features = torch.randn(1, 3, 1, 1)
    distances = (bottleneck.codebook.vectors - features.view(1, 3)).square().sum(1)
    expected = (-bottleneck.log_scale.exp() * distances).log_softmax(0)
    torch.testing.assert_close(bottleneck.logits(features).log_softmax(1)[0], expected, rtol=1e-4, atol=1e-5)


def test_kl_does_not_depend_on_the_temperature():
    features = torch.randn(2, 3, 2, 2)
    torch.manual_seed(3)
    warm = make(temperature=constant(2.0)).eval()
    cold = make(temperature=constant(0.1)).eval()
    cold.load_state_dict({**warm.state_dict(), "temperature": torch.tensor(0.1)})
    torch.testing.assert_close(warm(features).kl, cold(features).kl)


def test_cold_training_latents_are_code_vectors():
    bottleneck = make(temperature=constant(1e-4)).train()
    latents = bottleneck(torch.randn(4, 3, 2, 2)).latents.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    nearest = torch.cdist(latents, bottleneck.codebook.vectors.detach()).min(1).values
    assert (nearest < 1e-3).float().mean() > 0.9


def test_hard_training_latents_are_exactly_code_vectors_and_carry_a_gradient():
    bottleneck = make(estimator="gumbel_straight_through", temperature=constant(1.0)).train()
    features = torch.randn(4, 3, 2, 2, requires_grad=True)
    latents = bottleneck(features).latents
    flat = latents.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.cdist(flat, bottleneck.codebook.vectors.detach()).min(1).values.max() < 1e-5
    latents.sum().backward()
    assert features.grad.abs().sum() > 0 and bottleneck.codebook.vectors.grad.abs().sum() > 0


def test_soft_latents_equal_the_formula_for_the_same_noise():
    bottleneck = make(temperature=constant(0.7)).train()
    features = torch.randn(1, 3, 2, 2)
    bottleneck(features)  # initialises the codebook
    torch.manual_seed(5)
    latents = bottleneck(features).latents
    torch.manual_seed(5)
    logits = bottleneck.logits(features)
    noise = seeded_gumbel(logits.detach(), int(torch.randint(1 << 62, ())))
    weights = torch.softmax((logits + noise) / 0.7, 1)
    torch.testing.assert_close(latents.permute(0, 2, 3, 1).reshape(-1, 3), weights @ bottleneck.codebook.vectors)


def test_samples_follow_the_posterior():
    bottleneck = make().eval()
    features = torch.randn(1, 3, 1, 1)
    probabilities = bottleneck.logits(features).softmax(1)[0].detach()
    latents = bottleneck.sample_posterior(features.expand(20_000, -1, -1, -1)).latents.view(-1, 3).detach()
    codes = torch.cdist(latents, bottleneck.codebook.vectors.detach()).argmin(1)
    frequencies = torch.bincount(codes, minlength=6) / 20_000
    assert (frequencies - probabilities).abs().max() < 0.015


def test_gaussian_kl_equals_the_numpy_reference():
    features = torch.randn(3, 8, 2, 2)
    mean, log_variance = features.chunk(2, dim=1)
    expected = reference.gaussian_kl(mean.numpy(), log_variance.numpy())
    torch.testing.assert_close(
        Gaussian(channels=4)(features).kl, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logits": "cosine"}, "'distance', 'convolution' or 'features', not 'cosine'"),
        ({"in_channels": 5}, "in_channels = code_dim = 3, not 5"),
        ({"temperature": constant(0.0)}, "stay positive; it begins at 0.0"),
        ({"temperature": cosine(0.0, 0.0625)}, "stay positive; it begins at 0.0$"),
        ({"temperature": cosine(1.0, 0.0)}, "stay positive; it ends at 0.0"),
        ({"temperature": {"kind": "exponential", "start": 0.0, "end": 0.5}}, "cannot go from 0.0 to 0.5"),
        ({"temperature": {"kind": "constant", "ned": 1.0}}, "unknown key 'ned'; did you mean 'end'"),
    ],
)
def test_bad_options_name_the_value(options, message):
    with pytest.raises(SmaltiError, match=message):
        make(**options)


def test_a_codebook_as_large_as_the_first_batch_is_not_certain_of_its_codes():
    """Each feature is its own code then: at no distance."""
    torch.manual_seed(0)
    features = torch.randn(4, 16, 16, 16)
    few, many = (Categorical(codebook_size=size, code_dim=16) for size in (64, 1024))
    few(features), many(features)
    margins = [bottleneck.log_scale.exp().item() for bottleneck in (few, many)]
    assert margins[0] < margins[1] < 4 * margins[0]
