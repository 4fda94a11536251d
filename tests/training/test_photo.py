"""Perceptual and adversarial terms: their formulas, their delay, and that a resumed run is the same run."""

import itertools
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from conftest import draw_image
from smalti.apps.cli import main
from smalti.errors import SmaltiError
from smalti.files import read_tensors
from smalti.models.discriminator import (
    PatchDiscriminator,
    blur_pool,
    discriminator_loss,
    generator_loss,
    lecam_penalty,
)
from smalti.models.features import (
    FEATURES,
    EffNetLite0,
    PerceptualDistance,
    enlarged,
    perceptual_distance,
    perceptual_distances,
    random_windows,
)
from smalti.recipes import vqgan, vqvae
from smalti.training import tasks
from smalti.training.adversary import Adversary
from smalti.training.experiment import PhotoConfig
from smalti.training.log import read_metrics
from smalti.training.loop import train
from smalti.training.losses import passed_once
from training.test_loop import latest_checkpoint


class TwoStages(nn.Module):
    """A feature network of the interface's form."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 6, 3, 2)

    def forward(self, images):
        first = self.first(images).relu()
        return [first, self.second(first)]


@pytest.fixture
def two_stages(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(FEATURES, "effnet", TwoStages)


def test_perceptual_distance_is_its_formula():
    distance, images, others = PerceptualDistance(TwoStages()), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    expected = torch.zeros(2)
    for left, right in zip(distance.features(enlarged(images)), distance.features(enlarged(others)), strict=True):
        for index in range(2):
            for row in range(left.shape[2]):
                for column in range(left.shape[3]):
                    a, b = left[index, :, row, column], right[index, :, row, column]
                    a, b = (part / part.norm().clamp(min=1e-12) for part in (a, b))
                    expected[index] += (a - b).square().sum() / (left.shape[2] * left.shape[3])
    torch.testing.assert_close(distance(images, others), expected)
    assert distance(images, images).abs().max() == 0
    assert not distance.train().features.training
    assert all(not parameter.requires_grad for parameter in distance.parameters())


def test_grey_images_are_taken_as_colour():
    distance, images, others = PerceptualDistance(TwoStages()), torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(distance(images, others), distance(images.repeat(1, 3, 1, 1), others.repeat(1, 3, 1, 1)))


def test_an_unknown_network_names_the_known_ones():
    with pytest.raises(SmaltiError, match="'none' or one of effnet, not 'vgg'"):
        perceptual_distance("vgg")


def test_effnet_prefers_a_brighter_image_to_a_blurred_one():
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    image = nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=64)
    blurred = nn.functional.avg_pool2d(nn.functional.pad(image, (4, 4, 4, 4), mode="replicate"), 9, 1)
    distance = perceptual_distance("effnet")
    assert distance(image, image * 0.95 + 0.02) < distance(image, blurred)


def test_images_too_small_for_the_network_are_refused_before_training(tmp_path):
    with pytest.raises(SmaltiError, match="effnet looks at images of at least 8 pixels along a side, not 4x8"):
        train(vqvae(data="emoji", image_size="4x8", perceptual="effnet"), tmp_path / "run", progress=False)
    network = EffNetLite0().eval()
    assert [tuple(stage.shape[2:]) for stage in network(torch.rand(1, 3, 32, 32))][-1] == (1, 1)
    with pytest.raises(SmaltiError, match="effnet looks at no image of less than 32 pixels"):
        network(torch.rand(1, 3, 31, 40))


# ------------------------------------------------------------------ what repeats from pixel to pixel


def alternating():
    """Patterns (32, 32) of -1 and 1: checkerboards, rows and columns, in both phases."""
    sign = 1 - 2 * (torch.arange(32) % 2).float()
    whole = {"checkerboard": sign[:, None] * sign, "rows": sign[:, None].expand(32, 32), "columns": sign.expand(32, 32)}
    return {f"{name}{phase:+d}": phase * pattern for name, pattern in whole.items() for phase in (1, -1)}


def originals():
    """Four pictures with edges and a blurred copy, as a decoder would make them: (4, 3, 32, 32) each."""
    images = torch.stack([torch.from_numpy(draw_image(index)) for index in range(4)]).permute(0, 3, 1, 2) / 255
    images = 0.6 * images + 0.2
    return images, nn.functional.avg_pool2d(nn.functional.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)


@pytest.mark.parametrize("name", alternating())
def test_the_perceptual_term_rises_with_what_alternates(name):
    pytest.importorskip("efficientnet_lite_pytorch")
    distance, (images, made) = perceptual_distance("effnet"), originals()
    with torch.no_grad():
        values = [distance(made + strength * alternating()[name], images) for strength in (0, 0.01, 0.02, 0.05, 0.1)]
    assert all((more > less + 0.05).all() for less, more in itertools.pairwise(values))


def test_at_its_own_size_an_image_hides_a_checkerboard_from_the_network():
    """Why images are enlarged: strides fold a checkerboard onto a constant."""
    pytest.importorskip("efficientnet_lite_pytorch")
    distance, (images, _) = perceptual_distance("effnet"), originals()
    damaged = images + 0.02 * alternating()["checkerboard+1"]
    with torch.no_grad():
        own_size = perceptual_distances(distance.features(images), distance.features(damaged))
        assert own_size.mean() < 0.3 * distance(images, damaged).mean()


def test_images_are_enlarged_by_repetition():
    assert torch.equal(enlarged(torch.eye(8)[None, None])[0, 0], torch.kron(torch.eye(8), torch.ones(4, 4)))


def test_windows_are_the_same_of_an_image_and_its_reconstruction_and_reach_every_pixel():
    places = torch.arange(12 * 10.0).view(1, 1, 12, 10).repeat(64, 1, 1, 1)
    first, second = random_windows(4, places, -places)
    assert first.shape == (64, 1, 4, 4) and torch.equal(first, -second)
    assert len(set(first.flatten().tolist())) == 120 and first.flatten(1).unique(dim=0).shape[0] > 20
    assert torch.equal(first[0, 0, 1] - first[0, 0, 0], torch.full((4,), 10.0))
    (whole,) = random_windows(11, places)
    assert whole.shape == (64, 1, 11, 10)


def test_a_blurred_pool_keeps_constants_and_ramps_and_drops_what_alternates():
    assert torch.equal(blur_pool(torch.full((1, 2, 6, 8), 3.0)), torch.full((1, 2, 3, 4), 3.0))
    ramp = blur_pool(torch.arange(8.0).expand(1, 1, 8, 8))[0, 0, 0]
    torch.testing.assert_close(ramp, torch.tensor([0.25, 2.0, 4.0, 6.0]))  # repeats the edge
    for pattern in alternating().values():
        assert blur_pool(pattern[None, None])[..., 1:, 1:].abs().max() == 0


def test_the_discriminator_judges_patches_of_the_size_that_it_says():
    for layers, patch in ((1, 13), (2, 29), (3, 61)):
        images = torch.rand(1, 3, 96, 96, requires_grad=True)
        judgement = PatchDiscriminator(3, width=4, layers=layers).eval()(images)
        judgement[0, 0, judgement.shape[2] // 2, judgement.shape[3] // 2].backward()
        assert images.grad is not None
        seen = images.grad.abs().sum((0, 1))
        assert (seen.sum(0) > 0).sum() == patch and (seen.sum(1) > 0).sum() == patch


def test_the_discriminator_learns_a_checkerboard_that_strides_would_hide():
    torch.manual_seed(0)
    images, judge = originals()[0], PatchDiscriminator(3, width=8)
    fake = images + 0.05 * alternating()["checkerboard+1"]
    optimizer = torch.optim.Adam(judge.parameters(), lr=4e-3, betas=(0.5, 0.9))
    for _ in range(60):
        optimizer.zero_grad()
        discriminator_loss(judge(images), judge(fake)).backward()
        optimizer.step()
    assert discriminator_loss(judge.eval()(images), judge(fake)).item() < 0.5
    fake = images + 0.05 * alternating()["checkerboard-1"]  # the other phase
    assert discriminator_loss(judge(images), judge(fake)).item() < 0.6


# ------------------------------------------------------------------ the adversary


def test_losses_of_the_discriminator_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])
    assert discriminator_loss(real, fake).item() == pytest.approx((0.25 + 0.625) / 2)
    assert generator_loss(fake).item() == pytest.approx(1.375)


def test_lecam_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    penalty = lecam_penalty(real, fake, torch.tensor(1.0), torch.tensor(-1.0))
    assert penalty.item() == pytest.approx((9 + 2.25) / 2 + (16 + 1) / 2)


def test_an_image_is_judged_alone():
    judge, images = PatchDiscriminator(3, width=8).eval(), torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(judge(images)[1:2], judge(images[1:2]))


def test_the_adaptive_weight_makes_the_gradient_as_long_as_asked():
    torch.manual_seed(0)
    adversary = Adversary(PhotoConfig(adversarial_weight=0.3, discriminator_width=8), 3, "cpu")
    last = nn.Conv2d(4, 3, 1)
    made, images = last(torch.rand(2, 4, 16, 16)), torch.rand(2, 3, 16, 16)
    distortion = (made - images).square().mean()
    terms = adversary.loss(images, made, distortion, last.weight, progress=0.5)
    pull = torch.autograd.grad(distortion, last.weight, retain_graph=True)[0].norm()
    push = torch.autograd.grad(terms["adversarial"], last.weight)[0].norm()
    assert push.item() == pytest.approx(0.3 * pull.item(), rel=0.05)
    before = [parameter.clone() for parameter in adversary.model.parameters()]
    adversary.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, adversary.model.parameters(), strict=True))


def test_a_term_that_was_passed_once_has_its_value_and_its_gradient():
    weights = torch.rand(3, requires_grad=True)
    terms = [(made**3).sum().sin() if plain else passed_once((made**3).sum().sin(), made)
             for plain, made in ((True, 2 * weights), (False, 2 * weights))]  # fmt: skip
    assert terms[0].item() == pytest.approx(terms[1].item())
    expected, found = (torch.autograd.grad(term, weights)[0] for term in terms)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert passed_once(terms[0], weights) is terms[0]


def test_the_discriminator_learns_from_the_mean_of_accumulated_batches():
    """Judgements are averaged over the batches of a step, in its gradient and in what is usual."""
    photo = PhotoConfig(adversarial_weight=0.3, discriminator_width=8, discriminator_window=16, lecam_weight=0.1)
    images, found = torch.rand(4, 3, 16, 16), []
    for parts in (1, 2):
        torch.manual_seed(0)
        adversary, last = Adversary(photo, 3, "cpu"), nn.Conv2d(3, 3, 1)
        adversary.model.eval()  # spectral norms as they are
        for part in images.chunk(parts):
            adversary.loss(part, last(part), last(part).square().mean(), last.weight, progress=0.5)
        adversary.step()
        assert not adversary.judged and all(parameter.grad is None for parameter in adversary.model.parameters())
        moments = [state["exp_avg"] for state in adversary.optimizer.state.values()]
        found.append([adversary.usual, *moments])
    assert found[0][0].abs().min() > 0
    for whole, accumulated in zip(*found, strict=True):
        torch.testing.assert_close(whole, accumulated, rtol=1e-4, atol=1e-6)


def options(folder, **more):
    small = {"image_size": 16, "width": 8, "codebook_size": 8, "code_dim": 4}
    photo = {"adversarial_start": 1 / 3, "perceptual_start": 0.0, "lecam_weight": 0.1, "discriminator_window": 12}
    experiment = vqgan(data=str(folder), **photo, **small, **more)
    return experiment.with_settings(steps=6, batch_size=4, log_every=1, checkpoint_every=3, sample_every=0)


def test_the_discriminator_starts_late_and_a_resumed_run_is_the_same(tmp_path, image_folder, two_stages, monkeypatch):
    train(options(image_folder), tmp_path / "whole", progress=False)
    records = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [record["discriminator"] > 0 for record in records] == [False, False, True, True, True, True]
    assert all(record["perceptual"] > 0 for record in records)

    train(options(image_folder), tmp_path / "parts", progress=False)
    latest_checkpoint(tmp_path / "parts" / "checkpoints").unlink()  # as if stopped after step 3
    train(options(image_folder), tmp_path / "parts", progress=False)
    whole, parts = (read_tensors(latest_checkpoint(tmp_path / name / "checkpoints"))[0] for name in ("whole", "parts"))
    assert any(name.startswith("extra.adversary.model") for name in whole)
    assert whole["extra.adversary.usual"].abs().min() > 0
    assert set(whole) == set(parts)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_vqgan_is_the_vqvae_with_both_terms_and_flags_turn_them_off():
    terms = vqgan(data="emoji").photo
    assert terms.perceptual == "effnet" and terms.adversarial_weight > 0
    plain = vqgan(data="emoji", perceptual="none", adversarial_weight=0.0)
    assert replace(plain, recipe="vqvae") == vqvae(data="emoji")
    assert vqgan(data="emoji", perceptual="none").photo.perceptual_weight is None
    assert replace(vqgan(data="emoji"), photo=plain.photo) == plain


def test_a_missing_feature_network_is_said_before_an_image_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr(tasks, "open_data", lambda *options: pytest.fail("data was opened"))
    assert main(["train", "vqgan", "--data", "emoji", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "pip install 'smalti[perceptual]'" in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adversarial_weight": -1}, "adversarial_weight must not be negative: -1"),
        ({"adversarial_weight": 1, "lecam_weight": -1}, "lecam_weight must not be negative: -1"),
        ({"adversarial_weight": 1, "adversarial_start": 1}, "adversarial_start is a part of the run, in .*, not 1"),
        ({"adversarial_weight": 1, "discriminator_width": 0}, "discriminator_width must be at least 1, not 0"),
        ({"perceptual": "effnet", "perceptual_start": -1}, "perceptual_start is a part of the run"),
        ({"perceptual": "effnet", "perceptual_share": 0}, "perceptual_share is a part of a batch, in .*, not 0"),
        ({"perceptual": "effnet", "perceptual_window": 4}, "perceptual_window must be at least 8, not 4"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(SmaltiError, match=message):
        PhotoConfig(**options)
