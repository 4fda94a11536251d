"""Laws of samples and interpolations of an autoencoder, for every bottleneck."""

import math

import numpy as np
import pytest
import torch

from conftest import draw_image
from laws.test_bottlenecks import MEMBERS
from smalti.errors import SmaltiError
from smalti.images.pixels import to_float
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck, Gaussian
from smalti.models.config import AutoencoderConfig, Preprocessing

SIZE = 16


@pytest.fixture(params=MEMBERS)
def model(request):
    """With codebooks that have seen features; in training mode, which must not matter."""
    torch.manual_seed(0)
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    preprocessing = Preprocessing(image_size=SIZE)
    config = AutoencoderConfig(networks=networks, bottleneck=MEMBERS[request.param], preprocessing=preprocessing)
    model = Autoencoder(config).train()
    model(pictures(8))
    return model


def pictures(num, size=(SIZE, SIZE)):
    return to_float(torch.stack([torch.from_numpy(draw_image(index, size)) for index in range(num)]))


def test_samples_are_images_and_functions_of_the_seed(model):
    if not model.bottleneck.has_prior:
        with pytest.raises(SmaltiError, match=r"no p\(z\) to sample from; .* interpolate"):
            model.sample(2)
        return
    state = torch.random.get_rng_state()
    images = model.sample(3, seed=1)
    assert images.shape == (3, 3, SIZE, SIZE) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, model.sample(3, seed=1)) and not torch.equal(images, model.sample(3, seed=2))
    assert torch.equal(state, torch.random.get_rng_state()) and model.training
    sample = model.sample_latents(3, seed=1)
    assert (sample.codes is not None) == isinstance(model.bottleneck, DiscreteBottleneck)
    if sample.codes is not None:
        assert torch.equal(model.decode(sample.codes, sample.size), images)


def test_samples_around_an_image_vary_with_its_posterior_alone(model):
    image = pictures(1, (18, 25) if model.config.bottleneck.get("prior_grid") is None else (SIZE, SIZE))
    if not model.bottleneck.random_posterior:
        with pytest.raises(SmaltiError, match="one point, the image's reconstruction"):
            model.sample(2, like=image)
        return
    samples = model.sample(3, like=image, temperature=2.0)
    assert samples.shape == (3, *image.shape[1:])
    assert torch.equal(samples, model.sample(3, like=image, temperature=2.0))
    still = model.sample_latents(1, like=image, temperature=0.0)
    assert torch.equal(model.decode_latents(still.latents, still.size), model.reconstruct(image))


@pytest.mark.parametrize("steps", [2, 5])
def test_an_interpolation_has_the_reconstructions_at_its_ends(model, steps):
    first, second = pictures(2, (14, SIZE)).split(1)
    images = model.interpolate(first, second, steps)
    assert images.shape == (steps, 3, 14, SIZE)
    assert torch.equal(images[:1], model.reconstruct(first))
    assert torch.equal(images[-1:], model.reconstruct(second))


def test_what_cannot_be_sampled_or_interpolated_is_said(model):
    for sizes in ([(16, 16), (16, 20)], [(16, 20), (16, 16)]):
        with pytest.raises(SmaltiError, match="images of one size, got 16x16, 16x20"):
            model.interpolate(*(pictures(1, size) for size in sizes))
    with pytest.raises(SmaltiError, match="at least 2 steps, its ends, not 1"):
        model.interpolate(pictures(1), pictures(1), 1)
    with pytest.raises(SmaltiError, match="the images at the ends"):
        model.interpolate(pictures(2), pictures(1))
    with pytest.raises(SmaltiError, match="at least 1, not 0"):
        model.sample(0)


def test_the_way_between_gaussian_means_is_the_great_circle():
    """Against numpy: the plane of both, the angle in proportion to the share; equal lengths stay as they are."""
    bottleneck = Gaussian(channels=4).eval()
    start, end = (torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    end[:4] *= start[:4].norm() / end[:4].norm()
    shares = np.linspace(0, 1, 5)
    path = bottleneck.interpolate(start, end, torch.from_numpy(shares)).flatten(1).double().numpy()
    first, last = (features[:4].flatten().double().numpy() for features in (start, end))
    length = np.linalg.norm(first)
    across = last - first * (first @ last) / length**2
    across *= length / np.linalg.norm(across)
    angle = math.acos(first @ last / length**2)
    expected = [math.cos(share * angle) * first + math.sin(share * angle) * across for share in shares]
    np.testing.assert_allclose(path, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), length, rtol=1e-5)
    assert np.linalg.norm((first + last) / 2) < 0.9 * length
