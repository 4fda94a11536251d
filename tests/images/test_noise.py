"""Noise: its statistics, its reproducibility, and what a corruption may say."""

import math

import pytest
import torch

from smalti.configs import from_dict, to_dict
from smalti.errors import SmaltiError
from smalti.images.noise import GREY, corrupt, corrupt_each
from smalti.images.preprocessing import CURVES, LEVELS, Corruption, asked_noise

KINDS = tuple(LEVELS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def middle_grey(*shape):
    return torch.full(shape, 0.5)


def test_gaussian_noise_has_its_mean_and_deviation_and_is_independent_of_value_to_value():
    noise = corrupt(middle_grey(8, 3, 64, 64), Corruption(noise="gaussian", noise_level=0.1), seeded()) - 0.5
    count = noise.numel()
    assert abs(noise.mean().item()) < 5 * 0.1 / math.sqrt(count)
    assert noise.std().item() == pytest.approx(0.1, rel=5 / math.sqrt(2 * count))
    between = (noise[:, :, :, 1:] * noise[:, :, :, :-1]).mean() / 0.01, (noise[:, 0] * noise[:, 1]).mean() / 0.01
    assert all(abs(correlation) < 5 / math.sqrt(count / 3) for correlation in between)


def test_gaussian_noise_is_clamped_which_halves_it_at_white():
    noisy = corrupt(torch.ones(8, 3, 64, 64), Corruption(noise="gaussian", noise_level=0.1), seeded())
    assert noisy.max() == 1 and noisy.min() >= 0
    assert (1 - noisy).square().mean().item() == pytest.approx(0.01 / 2, rel=0.05)


def test_salt_and_pepper_replaces_its_share_of_pixels_in_all_channels_by_both_alike():
    noisy = corrupt(middle_grey(8, 3, 64, 64), Corruption(noise="salt_and_pepper", noise_level=0.2), seeded())
    replaced, count = noisy != 0.5, 8 * 64 * 64
    assert replaced[:, 0].float().mean().item() == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / count))
    assert torch.equal(noisy[:, 0], noisy[:, 1]) and set(noisy.unique().tolist()) == {0.0, 0.5, 1.0}
    assert noisy[replaced].mean().item() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(0.2 * count))


@pytest.mark.parametrize("side", [1, 4, 5])
def test_masking_hides_its_share_of_whole_squares(side):
    images, corruption = torch.zeros(16, 3, 32, 32), Corruption(noise="masking", noise_level=0.3, noise_patch=side)
    masked = corrupt(images, corruption, seeded()) == GREY
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    corners = masked[:, 0, ::side, ::side]
    whole = corners.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :32, :32]
    assert torch.equal(masked[:, 0], whole)
    assert corners.float().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / corners.numel()))


@pytest.mark.parametrize("noise", KINDS)
def test_a_range_gives_every_image_a_level_of_its_own(noise):
    corruption = Corruption(noise=noise, noise_level=0.2, noise_lowest=0.05)
    found = corrupt(middle_grey(64, 3, 64, 64) + 0.01, corruption, seeded()) - 0.51
    strength = found.flatten(1).std(1) if noise == "gaussian" else (found != 0)[:, 0].flatten(1).float().mean(1)
    low, high = strength.min().item(), strength.max().item()
    assert 0.04 < low < 0.07 and 0.17 < high < 0.22 and strength.mean().item() == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("noise", KINDS)
def test_noise_is_a_function_of_the_generator_and_of_seed_and_place(noise):
    images, corruption = torch.rand(4, 3, 16, 24), Corruption(noise=noise, noise_level=0.3)
    state = torch.random.get_rng_state()
    assert torch.equal(corrupt(images, corruption, seeded(1)), corrupt(images, corruption, seeded(1)))
    assert not torch.equal(corrupt(images, corruption, seeded(1)), corrupt(images, corruption, seeded(2)))
    together = torch.stack(corrupt_each(images, corruption, 5))
    apart = [*corrupt_each(images[:1], corruption, 5), *corrupt_each(images[1:], corruption, 5, first=1)]
    assert torch.equal(together, torch.stack(apart))
    assert not torch.equal(together, torch.stack(corrupt_each(images, corruption, 6)))
    same = corrupt_each(images[:1].expand(2, -1, -1, -1), corruption, 5)
    assert not torch.equal(same[0], same[1])
    assert torch.equal(torch.random.get_rng_state(), state)  # that of training
    assert together.min() >= 0 and together.max() <= 1


@pytest.mark.parametrize("noise", KINDS)
def test_one_seed_at_several_levels_is_the_same_noise(noise):
    images = middle_grey(2, 3, 16, 16)
    weak, strong = (torch.stack(corrupt_each(images, Corruption(noise=noise).at(level))) for level in (0.05, 0.1))
    if noise == "gaussian":
        torch.testing.assert_close(2 * (weak - images), strong - images)
    else:
        assert (weak != images).logical_and(weak != strong).sum() == 0  # what is replaced once stays replaced


def test_no_noise_is_the_images_themselves_and_uses_no_randomness():
    images, state = torch.rand(2, 3, 8, 8), torch.random.get_rng_state()
    assert corrupt(images, Corruption()) is images
    assert all(torch.equal(*pair) for pair in zip(images, corrupt_each(images, Corruption()), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert Corruption(noise="masking").at(0) == Corruption()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_level": 0.1}, "noise_level 0.1 has no effect without noise; leave it out"),
        ({"noise_lowest": 0.0}, "noise_lowest 0.0 has no effect without noise"),
        ({"noise": "gaussian", "noise_patch": 2}, "noise_patch 2 has no effect without noise masking"),
        ({"noise": "gaussian", "noise_level": 0.0}, "noise_level must lie above 0 and be at most 1, not 0.0"),
        ({"noise": "masking", "noise_level": 1.5}, "noise_level must lie above 0 and be at most 1, not 1.5"),
        ({"noise": "gaussian", "noise_lowest": 0.2}, "noise_lowest must lie in 0 to noise_level, 0.1: 0.2"),
        ({"noise": "masking", "noise_patch": 0}, "noise_patch is a side in pixels, at least 1, not 0"),
        ({"noise": "poisson"}, "noise 'poisson' is unknown; known: gaussian, masking, none, salt_and_pepper"),
    ],
)
def test_bad_noise_is_refused(options, message):
    with pytest.raises(SmaltiError, match=message):
        Corruption(**options)


@pytest.mark.parametrize("noise", ["none", *KINDS])
def test_a_corruption_is_stored_and_read_back_and_asked_for_again(noise):
    corruption = Corruption(noise=noise)
    assert from_dict(Corruption, to_dict(corruption)) == corruption
    assert asked_noise(corruption, noise) == corruption
    assert noise == "none" or CURVES[noise][0] == 0


def test_what_a_user_leaves_out_is_as_the_model_was_trained_if_on_that_noise():
    trained = Corruption(noise="masking", noise_level=0.5, noise_patch=4)
    assert asked_noise(trained, "masking") == trained
    assert asked_noise(trained, "masking", 0.2).noise_patch == 4
    assert asked_noise(trained, "gaussian") == Corruption(noise="gaussian", noise_level=0.1)
    assert str(trained) == "masking noise, level 0.5, squares of 4 pixels"
    assert str(Corruption(noise="gaussian", noise_lowest=0.0)) == "gaussian noise, levels 0.0 to 0.1"


def test_a_patch_larger_than_the_image_costs_no_memory():
    corruption = Corruption(noise="masking", noise_level=1.0, noise_patch=10**12)
    assert (corrupt(torch.zeros(2, 3, 8, 5), corruption, torch.Generator()) == 0.5).all()
