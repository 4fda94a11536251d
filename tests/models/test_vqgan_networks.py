"""The options of the networks of VQGAN's kind that published weights need."""

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.models.networks import VqganNetworks
from smalti.models.networks.vqgan import Details

SMALL = {"width": 8, "multipliers": (1, 2), "depth": 1, "groups": 4}
OPTIONS = [
    {"middle": 2},
    {"attention": ()},
    {"attention": (0, 1)},
    {"stem_width": 4},
    {"details": Details(halvings=0)},
    {"multipliers": (1, 2, 2), "details": Details(halvings=1)},
    {"patch": 2},
    {"details": Details(down="symmetric")},
    {"details": Details(down="average", bias=False, shortcut="after", code_kernel=1)},
    {"details": Details(up="shuffle", adaptive=True), "decoder_depth": 1},
    {"latent_channels": 5, "last_kernel": 5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sizes_follow_the_options_and_every_weight_has_a_gradient(options):
    networks = VqganNetworks(**{**SMALL, **options})
    encoder, decoder = networks.encoder(3, 6), networks.decoder(6, 3)
    images = torch.rand(2, 3, 2 * networks.stride, 3 * networks.stride)
    features = encoder(images)
    assert features.shape == (2, 6, 2, 3)
    parameters = decoder(features)
    assert parameters.shape == images.shape
    parameters.square().sum().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_layers_are_named_after_their_place():
    names = {name.rpartition(".")[0].split(".")[0] for name in VqganNetworks(**SMALL).decoder(6, 3).state_dict()}
    middle = {"middle_block0", "middle_attention0", "middle_block1"}
    levels = {"level1_block0", "level1_block1", "level1_attention0", "level1_attention1", "level1_double"}
    assert names == {"head", "first", *middle, *levels, "level0_block0", "level0_block1", "norm", "last"}


def test_an_adaptive_norm_sees_the_mean_and_the_deviation_of_the_latents_alone():
    norm = VqganNetworks(**SMALL, details=Details(adaptive=True)).decoder(6, 3).get_submodule("level1_style")
    inputs, latents = torch.randn(2, 16, 4, 4), torch.randn(2, 6, 4, 4)
    moved = latents.flatten(2)[:, :, torch.randperm(16)].view_as(latents)
    assert torch.allclose(norm(inputs, latents), norm(inputs, moved), atol=1e-6)
    assert not torch.allclose(norm(inputs, latents), norm(inputs, 2 * latents), atol=1e-3)


def test_an_encoder_alone_gives_codes_and_says_that_it_gives_no_images():
    networks = {"kind": "vqgan", **SMALL, "has_decoder": False}
    bottleneck = {"kind": "fsq", "levels": (4, 4)}
    model = Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck)).eval()
    codes = model.encode(torch.rand(1, 3, 4, 4))
    assert codes.shape == (1, 2, 2)
    with pytest.raises(SmaltiError, match="encoder alone"):
        model.decode(codes)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"details": Details(halvings=2)}, "at most 1 halvings, not 2"),
        ({"attention": (2,)}, "attention at 2"),
        ({"details": Details(code_kernel=2)}, "code_kernel=2"),
        ({"stem_width": 6}, "6 channels do not fall into 4 groups"),
    ],
)
def test_options_that_fit_no_network_are_refused(options, named):
    with pytest.raises(SmaltiError, match=named):
        VqganNetworks(**{**SMALL, **options})
