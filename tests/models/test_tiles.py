"""Large images in tiles: the same codes and pixels as the whole, in bounded memory."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import draw_image
from laws.members import DISCRETE, MEMBERS, make
from smalti.models import tiles
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.models.networks import MlpNetworks, Networks, ResidualNetworks, StridedNetworks
from smalti.models.tiles import Mosaic, Tiles

SIZE = (71, 90)  # no multiple of the stride
SMALL = {"width": 8, "depth": 1, "patch": 2, "convolutions": 2}
ANY_SIZE = [name for name in MEMBERS if name != "dvae learned prior"]  # which has one grid
RECEPTIVE = [
    ResidualNetworks(**SMALL),
    ResidualNetworks(width=8, depth=2, stride=4, convolutions=3, stem_kernel=7),
    ResidualNetworks(width=8, depth=1, stride=8, patch=4),
    StridedNetworks(width=8, depth=1, stride=4),
    StridedNetworks(width=8, depth=3, stride=8),
]


def autoencoder(name="vq gradient", **networks):
    torch.manual_seed(0)
    config = AutoencoderConfig(networks={"kind": "residual", **SMALL, **networks}, bottleneck=MEMBERS[name])
    model = Autoencoder(config)
    model.bottleneck = make(name)
    return model.eval()


@pytest.fixture
def cutting(monkeypatch):
    """A function after which images above 2,000 pixels are cut, into tiles of 32 pixels."""

    def cut():
        for name, value in {"WHOLE_PIXELS": 2000, "TILE": 32, "HALO": 24}.items():
            monkeypatch.setattr(tiles, name, value)

    return cut


@pytest.fixture
def images():
    return torch.from_numpy(np.stack([draw_image(index, SIZE) for index in range(2)])).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("name", ANY_SIZE)
def test_tiles_give_what_the_whole_image_gives(name, images, cutting):
    model = autoencoder(name)
    latents, made = model.encode_latents(images), model.reconstruct(images)
    codes = model.encode(images) if name in DISCRETE else None
    whole = model.decode_latents(latents, SIZE)
    cutting()
    assert model.tiles.exact and len(list(model.tiles.of(*SIZE))) == 9
    assert torch.allclose(model.decode_latents(latents, SIZE), whole, atol=1e-5)
    if codes is None:
        assert torch.allclose(model.encode_latents(images), latents, atol=1e-4)
        assert torch.allclose(model.reconstruct(images), made, atol=1e-4)
        return
    found = model.encode(images)
    assert found.shape == codes.shape and (found == codes).double().mean() > 0.995  # rounding decides between two
    assert torch.equal(model.reconstruct(images), model.decode(found, SIZE))
    assert torch.equal(model.encode(images[1:]), found[1:])  # alone as among others
    many = model.encode_many([*images, images[0, :, :9]])
    assert torch.equal(many[1].codes, found[1]) and many[2].size == (9, SIZE[1])
    assert torch.equal(model.decode_many(many)[1], model.decode(found, SIZE)[1])


def test_samples_around_an_image_and_walks_between_two_go_through_tiles(images, cutting):
    model = autoencoder("gaussian")
    walk, sample = model.interpolate(*images, steps=3), model.sample(1, like=images[0], temperature=0)
    cutting()
    assert torch.allclose(model.interpolate(*images, steps=3), walk, atol=1e-4)
    assert torch.allclose(model.sample(1, like=images[0], temperature=0), sample, atol=1e-4)


@pytest.mark.parametrize("size", [(1024, 1024), (1, 1), (40, 26_212)])
def test_up_to_a_million_pixels_nothing_is_cut(size):
    assert [tile.keep for tile in Tiles(RECEPTIVE[0]).of(*size)] == [
        (slice(0, -(-size[0] // 4)), slice(0, -(-size[1] // 4)))
    ]


def test_tiles_cover_a_photograph_once_with_their_surroundings():
    networks = RECEPTIVE[0]
    seen = np.zeros((756, 1008), int)
    for tile in Tiles(networks).of(3024, 4032):
        seen[tile.keep] += 1
        for keep, around, inside, length in zip(*tile, seen.shape, strict=True):
            assert around == slice(max(0, keep.start - 16), min(length, keep.stop + 16))
            assert range(length)[around][inside] == range(length)[keep]
    assert (seen == 1).all()


def test_networks_of_one_size_are_never_cut(cutting):
    cutting()
    assert len(list(Tiles(MlpNetworks(image_size="64x100")).of(64, 100))) == 1


@pytest.mark.parametrize("networks", RECEPTIVE)
def test_nothing_beyond_the_reach_matters(networks):
    """By gradients: of a code to pixels, and of a cell's pixels to codes; something at more than a third of it does."""
    stride, cells = networks.stride, 2 * -(-networks.reach // networks.stride) + 3
    middle, farthest = cells // 2, []
    image = torch.rand(1, 3, 1, 1).expand(1, 3, cells * stride, cells * stride).contiguous()
    image = (image + 0.1 * torch.randn_like(image)).requires_grad_()
    networks.encoder(3, 4)(image)[..., middle, middle].sum().backward()
    grid = torch.randn(1, 4, cells, cells, requires_grad=True)
    networks.decoder(4, 3)(grid)[..., middle * stride : (middle + 1) * stride, :].sum().backward()
    assert image.grad is not None and grid.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
    farthest.append(max(middle * stride - rows.min(), rows.max() - (middle + 1) * stride + 1))
    rows = grid.grad.abs().sum((0, 1, 3)).nonzero()[:, 0] * stride
    farthest.append(max((middle - 1) * stride - rows.min(), rows.max() - (middle + 1) * stride) + 1)
    assert networks.reach / 3 < max(farthest) <= networks.reach


class Everywhere(nn.Module):
    """Adds the mean of the image, as a normalisation over all of it would."""

    def forward(self, inputs):
        return inputs + inputs.mean((2, 3), keepdim=True)


class WholeImage(Networks):
    """Networks whose codes depend on all of an image."""

    stride = 4

    def encoder(self, image_channels, features):
        return nn.Sequential(Everywhere(), nn.Conv2d(image_channels, features, 4, 4))

    def decoder(self, latents, parameters):
        return nn.ConvTranspose2d(latents, parameters, 4, 4)


def test_a_model_that_sees_the_whole_image_says_that_tiles_differ(images, cutting):
    model = autoencoder("identity")
    model.networks = WholeImage()
    model.encoder, model.decoder = model.networks.encoder(3, 6), model.networks.decoder(6, 3)
    whole = model.encode_latents(images)
    cutting()
    with pytest.warns(UserWarning, match=r"cut into tiles .* see all of an image: the result is not that of the whole"):
        assert not torch.allclose(model.encode_latents(images), whole, atol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_latents(images[..., :40, :40])


def test_a_part_that_is_the_whole_is_taken_as_it_is():
    mosaic, part = Mosaic((2, 3)), torch.rand(1, 2, 3)
    mosaic.put((slice(0, 2), slice(0, 3)), part)
    assert mosaic.whole is part


def test_the_networks_never_see_more_than_a_tile_with_its_surroundings():
    model, seen = autoencoder(width=4, patch=4), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    model.decoder.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape)))
    images = torch.zeros(1, 3, 1100, 1401)
    assert model.reconstruct(images).shape == images.shape
    assert len(seen) == 2 * 9 and max(rows * columns for _, _, rows, columns in seen) == 640**2


PEAK = """
import re, sys
from smalti.apps.cli import main
failed = main(sys.argv[1:])
with open("/proc/self/status", encoding="ascii") as file:
    print("PEAK", failed, int(re.search("VmHWM:[^0-9]*([0-9]+)", file.read())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a system that does not say its peak memory")
def test_a_12_megapixel_photograph_takes_little_memory(tmp_path):
    """Of a tiny model: what is left are the copies of the image, and torch itself."""
    autoencoder("fsq", stride=8, patch=8).save_pretrained(tmp_path / "model")
    Image.new("RGB", (4032, 3024), "olive").save(tmp_path / "photo.png", compress_level=0)
    verb = [sys.executable, "-c", PEAK, "encode", tmp_path / "model", tmp_path / "photo.png"]
    done = subprocess.run([*verb, "--out", tmp_path / "codes.npz"], capture_output=True, text=True)
    assert done.returncode == 0 and "PEAK 0" in done.stdout, done.stderr
    assert int(done.stdout.split()[-1]) < 900
