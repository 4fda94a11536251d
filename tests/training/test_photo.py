"""Perceptual and adversarial terms: their formulas, their delay, and that a resumed run is the same run."""

import pytest
import torch
from torch import nn

from smalti.errors import SmaltiError
from smalti.files import read_tensors
from smalti.models.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from smalti.models.features import FEATURES, EffNetLite0, PerceptualDistance, perceptual_distance
from smalti.recipes import vqvae
from smalti.training.adversary import Adversary
from smalti.training.experiment import PhotoConfig
from smalti.training.log import read_metrics
from smalti.training.loop import train
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
    for left, right in zip(distance.features(images), distance.features(others), strict=True):
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
    with pytest.raises(SmaltiError, match="effnet looks at images of at least 32 pixels along a side, not 16x32"):
        train(vqvae(data="emoji", image_size="16x32", perceptual="effnet"), tmp_path / "run", progress=False)
    network = EffNetLite0().eval()
    assert [tuple(stage.shape[2:]) for stage in network(torch.rand(1, 3, 32, 32))][-1] == (1, 1)
    with pytest.raises(SmaltiError, match="not 31x40"):
        network(torch.rand(1, 3, 31, 40))


def test_losses_of_the_discriminator_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])
    assert discriminator_loss(real, fake).item() == pytest.approx((0.25 + 0.625) / 2)
    assert generator_loss(fake).item() == pytest.approx(1.375)


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
    assert all(parameter.grad is not None for parameter in adversary.model.parameters())
    before = [parameter.clone() for parameter in adversary.model.parameters()]
    adversary.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, adversary.model.parameters(), strict=True))


def options(folder, **more):
    small = {"image_size": 16, "width": 8, "codebook_size": 8, "code_dim": 4}
    photo = {"perceptual": "effnet", "adversarial_weight": 0.1, "adversarial_start": 1 / 3}
    experiment = vqvae(data=str(folder), **photo, **small, **more)
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
    assert set(whole) == set(parts)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_negative_weights_are_refused():
    with pytest.raises(SmaltiError, match="adversarial_weight must not be negative: -1"):
        PhotoConfig(adversarial_weight=-1)
