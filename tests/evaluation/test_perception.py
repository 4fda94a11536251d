"""What networks see of sets and pairs: nothing of equal images, more of stronger damage, checkerboards included."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from smalti.data.batches import some_images
from smalti.errors import SmaltiError
from smalti.evaluation.perception import Observer, chosen_networks, open_networks
from smalti.images.preprocessing import Preprocessing

SIZE = 32


@pytest.fixture(scope="module")
def effnet():
    return open_networks(["effnet"])


@pytest.fixture(scope="module")
def images():
    return some_images("emoji", "test", Preprocessing(image_size=SIZE), 32) * 0.7 + 0.15


def compare(effnet, images, others):
    observer = Observer(effnet)
    found = observer.add_pairs("images", images, "others", others)
    pairs = {name: value.mean().item() for name, value in found.items()}
    return pairs | {name: one.value for name, one in observer.distances("others", "images", paired=True).items()}


def noise(images, strength):
    return images + strength * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def checkerboard(images, strength):
    return images + strength * (1 - 2 * ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2))


def blocks(images, strength):
    return images.lerp(F.interpolate(F.avg_pool2d(images, 8), scale_factor=8), 5 * strength)


def blur(images, strength):
    return images.lerp(F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1), 5 * strength)


def test_equal_images_have_no_distance(effnet, images):
    found = compare(effnet, images, images)
    assert found.keys() == {"effnet_lpips", "fd_effnet", "kid_effnet"}
    assert all(value == pytest.approx(0, abs=1e-5) for value in found.values())


@pytest.mark.parametrize("damage", [noise, checkerboard, blocks, blur])
def test_every_number_rises_with_the_strength_of_a_damage(damage, effnet, images):
    curve = [compare(effnet, images, damage(images, strength)) for strength in (0.0, 0.03, 0.2)]
    for name in curve[0]:
        values = [point[name] for point in curve]
        assert values == sorted(values) and values[-1] > values[0] + 1e-3, name


def test_a_checkerboard_is_seen_as_well_as_noise_of_the_same_energy(effnet, images):
    strength = 0.03
    pairs = compare(effnet, images, noise(images, strength)), compare(effnet, images, checkerboard(images, strength))
    assert pairs[1]["effnet_lpips"] > pairs[0]["effnet_lpips"]


def test_grey_images_are_looked_at_as_colour(effnet, images):
    grey = images.mean(1, keepdim=True)
    assert compare(effnet, grey, noise(grey, 0.1))["effnet_lpips"] > 0


def test_sets_are_the_same_in_any_batches(effnet, images):
    whole, parts = Observer(effnet), Observer(effnet)
    whole.add("images", images)
    for part in images.split(5):
        parts.add("images", part)
    together, apart = (torch.cat(observer.sets["images", "effnet"]) for observer in (whole, parts))
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)
    halves = whole.halves("images", prefix="halves_")
    assert halves.keys() == {"halves_fd_effnet", "halves_kid_effnet"} and halves["halves_fd_effnet"].value > 0


def test_a_network_says_what_it_is(effnet):
    about = Observer(effnet).about()["effnet"]
    assert "EfficientNet-Lite0" in about["network"] and len(about["weights_sha256"]) == 64


# ------------------------------------------------------------------ networks of other packages


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins with the interfaces of torch-fidelity 0.4 and lpips 0.1.4, whose weights cannot be had offline."""

    def create_feature_extractor(name, list_features, cuda=True, **options):
        assert (name, list_features, cuda) == ("inception-v3-compat", ["2048"], False)

        def forward(images):
            assert images.dtype == torch.uint8 and images.shape[1] == 3
            return (F.adaptive_avg_pool2d(images.float(), 2).flatten(1),)

        module = torch.nn.Module()
        module.forward = forward
        return module

    class LPIPS(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "alex"

        def forward(self, images, others, normalize=False):
            assert normalize  # they are in [0, 1]
            return (images - others).square().mean((1, 2, 3), keepdim=True)

    fidelity, utils, lpips = (types.ModuleType(name) for name in ("torch_fidelity", "torch_fidelity.utils", "lpips"))
    utils.create_feature_extractor, lpips.LPIPS = create_feature_extractor, LPIPS
    for module in (fidelity, utils, lpips):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_numbers_of_other_packages_have_their_own_names(packages, images):
    found = compare(chosen_networks("inception,lpips", "cpu"), images, noise(images, 0.1))
    assert found.keys() == {"fid", "kid", "lpips"} and found["fid"] > 0 and found["lpips"] > 0


def test_a_missing_package_is_an_error_if_asked_for_and_a_warning_if_not(monkeypatch):
    for name in ("lpips", "torch_fidelity", "efficientnet_lite_pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SmaltiError, match="pip install lpips"):
        chosen_networks("lpips", "cpu")
    with pytest.raises(SmaltiError, match="pip install torch-fidelity"):
        chosen_networks("inception", "cpu")
    with pytest.raises(SmaltiError, match="smalti\\[perceptual\\]"):
        chosen_networks("effnet", "cpu")
    with pytest.warns(UserWarning, match="no perceptual distances.*smalti\\[perceptual\\]"):
        assert chosen_networks(None, "cpu") == {}
    assert chosen_networks("none", "cpu") == {}
    with pytest.raises(SmaltiError, match="not by 'vgg'"):
        chosen_networks("vgg", "cpu")


def test_weights_that_cannot_be_had_are_named(packages, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(sys.modules["lpips"], "LPIPS", refuse)
    with pytest.raises(SmaltiError, match="lpips need weights that cannot be downloaded: no network"):
        open_networks(["lpips"])


def test_a_torchvision_of_another_torch_is_an_error_of_one_line(monkeypatch):
    from smalti.evaluation import distances

    def broken(name):
        raise RuntimeError("operator torchvision::nms\ndoes not exist")

    monkeypatch.setattr(distances.importlib, "import_module", broken)
    with pytest.raises(SmaltiError, match="torchvision::nms does not exist"):
        distances.frechet_distance(torch.rand(5, 2), torch.rand(5, 2))
