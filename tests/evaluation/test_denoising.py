"""The curve over a noise's levels: what it must agree with, and that filters are tuned on other images."""

import sys

import numpy as np
import pytest
import torch

from smalti.evaluation import denoising as module
from smalti.evaluation.autoencoders import evaluate
from smalti.evaluation.denoising import (
    Tuned,
    available_filters,
    combinations,
    denoising,
    measured,
    quality,
    tone_curve,
    tuned,
)
from smalti.images.noise import corrupt_each
from smalti.images.preprocessing import CURVES, Corruption
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    bottleneck = {"kind": "identity", "channels": 4}
    preprocessing = Preprocessing(image_size=16)
    return Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck, preprocessing=preprocessing))


def few_levels(monkeypatch, *levels):
    monkeypatch.setattr(module, "CURVES", dict.fromkeys(CURVES, levels))


@pytest.mark.parametrize("noise", CURVES)
def test_the_curve_begins_at_the_plain_evaluation_and_its_noise_grows(noise, model, image_folder, monkeypatch):
    monkeypatch.setattr(module, "available_filters", lambda channels: ({}, {"median": "install it"}))
    found = denoising(model, str(image_folder), "all", Corruption(noise=noise))
    plain = evaluate(model, str(image_folder), "all")["metrics"]
    first, *others = found["rows"]
    assert (found["num_images"], found["trained_noise"]) == (40, "no noise") and "noisy" not in first
    for name in ("psnr_db", "ssim"):
        assert first["restored"][name] == pytest.approx(plain[name], abs=1e-4)
    assert [row["level"] for row in others] == list(CURVES[noise][1:])
    noisy = [row["noisy"]["psnr_db"] for row in others]
    assert noisy == sorted(noisy, reverse=True)
    assert found["left_out"] == {"median": "install it"} and "ahead_db" not in others[0]


def test_it_is_the_same_twice_and_leaves_the_global_generator_alone(model, image_folder, monkeypatch):
    few_levels(monkeypatch, 0.0, 0.2)
    state = torch.random.get_rng_state()
    first, second = (denoising(model, str(image_folder), "all", Corruption(noise="gaussian")) for _ in range(2))
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_row_is_what_its_parts_say(model, image_folder, monkeypatch):
    pytest.importorskip("skimage")
    few_levels(monkeypatch, 0.0, 0.2)
    _, row = denoising(model, str(image_folder), "test", Corruption(noise="gaussian"))["rows"]
    filters, left_out = available_filters(3)
    best = max(row[name]["psnr_db"] for name in filters)
    assert row[row["best_filter"]]["psnr_db"] == best and filters.keys() | left_out.keys() == {
        "median",
        "total_variation",
        "nl_means",
        "wavelet",
    }
    assert row["ahead_db"] == pytest.approx(row["restored"]["psnr_db"] - best)
    assert best > row["noisy"]["psnr_db"]


def test_the_median_is_numpys_and_other_filters_take_noise_away():
    pytest.importorskip("skimage")
    images = torch.full((2, 3, 16, 16), 0.5)
    images[..., 8:] = 0.2
    noisy = torch.stack(corrupt_each(images, Corruption(noise="gaussian", noise_level=0.1)))
    filters, _ = available_filters(3)
    found = Tuned(filters["median"].apply, 0.1, {"window": 3})(noisy)
    assert found[0, 1, 5, 10].item() == pytest.approx(np.median(noisy[0, 1, 4:7, 9:12].numpy()))
    for name, each in filters.items():
        best = tuned(each, images, noisy)
        assert best.deviation == pytest.approx(0.1, rel=0.05) and best.settings in each.settings
        gained = measured(best, images, noisy)
        assert gained["psnr_db"] >= gained["without_tone_curve_psnr_db"] > quality(images, noisy)["psnr_db"] + 3, name
    for name, each in available_filters(1)[0].items():
        assert Tuned(each.apply, 0.1, each.settings[0])(noisy[:, :1]).shape == (2, 1, 16, 16), name


def test_the_tone_curve_is_the_mean_clean_value_and_undoes_clamping():
    images = torch.ones(4, 3, 32, 32)
    images[..., 16:] = 0.5
    noisy = torch.stack(corrupt_each(images, Corruption(noise="gaussian", noise_level=0.1)))
    mean = torch.where(images == 1, noisy[..., :16].mean(), noisy[..., 16:].mean())  # a filter that knows the areas
    assert mean.max() < 0.97
    values, clean = tone_curve(mean, images)
    assert values.tolist() == pytest.approx([noisy[..., 16:].mean().item(), noisy[..., :16].mean().item()], abs=1e-5)
    assert clean.tolist() == [0.5, 1.0]


def test_filters_are_tuned_on_another_split(model, image_folder, monkeypatch):
    seen = []
    original = module.some_images

    def noted(data, split, *rest):
        seen.append(split)
        return original(data, split, *rest)

    few_levels(monkeypatch, 0.0)
    monkeypatch.setattr(module, "some_images", noted)
    for split in ("test", "validation"):
        denoising(model, str(image_folder), split, Corruption(noise="masking"))
    assert seen == ["test", "validation", "validation", "train"]


def test_without_their_package_filters_are_left_out_with_the_remedy(monkeypatch):
    for missing in ("pywt", "skimage.restoration"):
        monkeypatch.setitem(sys.modules, missing, None)
        filters, left_out = available_filters(3)
        assert filters.keys().isdisjoint(left_out) and len(filters) + len(left_out) == 4
        assert set(left_out.values()) == {"pip install 'smalti[filters]'"}
    assert filters == {}


def test_settings_are_all_combinations():
    assert combinations(a=(1, 2), b=(3,)) == ({"a": 1, "b": 3}, {"a": 2, "b": 3})
