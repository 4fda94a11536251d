"""A model in use is not touched: neither its mode, nor what trains it meanwhile."""

import copy
import threading

import pytest
import torch
from torch import nn

from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.models.likelihoods import LIKELIHOODS
from smalti.models.networks import NETWORKS
from smalti.modes import evaluating, using
from smalti.priors.family import PRIORS
from smalti.training.experiment import OptimizerConfig
from smalti.training.state import make_optimizers

RESIDUAL = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
VQ = {"kind": "vector_quantizer", "codebook_size": 16, "code_dim": 4}
DVAE = {"kind": "categorical", "codebook_size": 16, "code_dim": 4}


class Noisy(NETWORKS["strided"]):
    """Networks with everything whose behaviour depends on the mode."""

    def encoder(self, image_channels, features):
        last = nn.BatchNorm2d(features)
        return nn.Sequential(super().encoder(image_channels, features), nn.Dropout(0.5), nn.Sequential(), last)


def make(bottleneck=VQ, networks=RESIDUAL, likelihood="gaussian"):
    torch.manual_seed(0)
    parts = {"networks": networks, "bottleneck": bottleneck, "likelihood": {"kind": likelihood}}
    return Autoencoder(AutoencoderConfig(**parts, preprocessing=Preprocessing(image_size=16)))


def modes(model):
    return [module.training for module in model.modules()]


@pytest.fixture
def noisy():
    NETWORKS["noisy"] = Noisy
    model = make(networks={"kind": "noisy", "width": 8, "depth": 1})
    model(torch.rand(4, 3, 16, 16))
    yield model
    del NETWORKS["noisy"]


def test_a_view_is_the_module_in_eval_mode(noisy):
    images = torch.rand(2, 3, 16, 16)
    expected = copy.deepcopy(noisy).eval()
    with using(noisy) as still:
        assert not any(modes(still)) and all(modes(noisy)) and not torch.is_grad_enabled()
        assert type(still) is Autoencoder and torch.equal(still(images).parameters, expected(images).parameters)
        assert all(one is two for one, two in zip(still.parameters(), noisy.parameters(), strict=True))
        with torch.no_grad():
            next(noisy.parameters()).add_(1)
        noisy.double()
        assert all(one is two for one, two in zip(still.buffers(), noisy.buffers(), strict=True))
    noisy.encoder.eval()
    assert evaluating(noisy.encoder) is noisy.encoder and evaluating(noisy) is not noisy


def test_a_view_shares_what_is_shared():
    layer = nn.Linear(2, 2)
    still = evaluating(nn.ModuleList([layer, layer, nn.Dropout()]))
    assert still[0] is still[1] is not layer


def test_threads_that_use_a_model_leave_its_training_alone(noisy):
    """A model in training mode that was encoded with from 4 threads was left in eval mode 19 times of 40."""
    images, seen, stop = torch.rand(2, 3, 16, 16), set(), threading.Event()
    codes, made = noisy.encode(images), noisy.reconstruct(images)
    wrong = []

    def use():
        while not stop.is_set():
            wrong.extend([1] * (not torch.equal(noisy.encode(images), codes)))
            wrong.extend([1] * (not torch.equal(noisy.reconstruct(images), made)))
            noisy.sample_latents(1)
            noisy.interpolate(images[0], images[1], 2)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        seen.update(modes(noisy))
    stop.set()
    for thread in threads:
        thread.join()
    assert seen == {True} and not wrong


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn", "maskgit", "pixelsnail"])
def test_priors_sample_without_leaving_training_mode(kind):
    torch.manual_seed(0)
    prior = PRIORS.build({"kind": kind, "dropout": 0.5}, codebook_size=8, grid=(3, 3))
    still = copy.deepcopy(prior).eval()
    seen = []
    prior.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    samples = [each.sample(2, generator=torch.Generator().manual_seed(1)) for each in (prior, still)]
    assert torch.equal(*samples) and all(modes(prior)) and not any(seen)


TYPES = [torch.float16, torch.bfloat16, torch.float64]
OTHERS = [{"kind": "strided", "width": 8, "depth": 1}, {"kind": "mlp", "image_size": 16}]
KINDS = [(dtype, networks, "gaussian") for dtype in TYPES for networks in (RESIDUAL, *OTHERS)]
KINDS += [(torch.bfloat16, RESIDUAL, likelihood) for likelihood in LIKELIHOODS if likelihood != "gaussian"]


@pytest.mark.parametrize(("dtype", "networks", "likelihood"), KINDS)
def test_models_of_every_type_give_float32_images(dtype, networks, likelihood):
    for bottleneck in (VQ, DVAE, {"kind": "gaussian", "channels": 4}):
        model = make(bottleneck, networks, likelihood)
        plain, images = copy.deepcopy(model), torch.rand(2, 3, 16, 16)
        model.to(dtype)
        latents = model.encode_latents(images)
        made = model.decode_latents(latents)
        assert latents.dtype == made.dtype == torch.float32 and torch.equal(model.reconstruct(images), made)
        if model.bottleneck.random_posterior or bottleneck is VQ:
            assert model.sample(2, seed=1).dtype == model.interpolate(images[0], images[1], 3).dtype == torch.float32
        tolerance = 1e-5 if dtype == torch.float64 else 0.1
        if bottleneck in (VQ, DVAE):
            codes = model.encode(images)
            assert torch.equal(model.decode(codes), made)
            made = plain.decode(codes)
            latents = plain.bottleneck.decode(codes)
        torch.testing.assert_close(
            model.decode_latents(latents), plain.decode_latents(latents), atol=tolerance, rtol=0.1
        )
        out = model.train()(images)
        (model.likelihood.nll(out.parameters, images.round()).mean() + out.bottleneck.kl.mean()).backward()
        assert all(p.grad is None or p.grad.dtype == p.dtype for p in model.parameters())


def test_frozen_models_stand_still():
    for bottleneck in (VQ, DVAE):
        model = make(bottleneck).requires_grad_(False)
        before = copy.deepcopy(model.state_dict())
        model(torch.rand(2, 3, 16, 16))
        model.bottleneck.update()
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("options", [DVAE, VQ | {"learning": "gradient"}, VQ | {"learning": "simvq"}])
def test_weight_decay_leaves_code_vectors_alone(options):
    model = make(options)
    (adam,) = make_optimizers(model, OptimizerConfig(weight_decay=0.5))
    decayed = {id(item) for group in adam.param_groups if group["weight_decay"] for item in group["params"]}
    names = model.no_weight_decay()
    assert names == {"bottleneck.codebook.matrix" if "simvq" in options.values() else "bottleneck.codebook.table"}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1 and name not in names)
    assert sum(len(group["params"]) for group in adam.param_groups) == len(list(model.parameters()))
