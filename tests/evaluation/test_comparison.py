"""What a comparison measures of gradients, of relaxation, of sets of images and of PCA."""

import copy

import pytest
import torch

from laws.test_bottlenecks import MEMBERS, SIDE
from smalti.data.batches import some_images
from smalti.errors import SmaltiError
from smalti.evaluation.comparison import TEMPERATURES, gradient_path, pca_baseline, relaxation
from smalti.evaluation.generation import sampler_of_model, sampler_of_noise
from smalti.evaluation.perception import FeatureNetwork, Observer
from smalti.evaluation.samples import REAL, measure_sets
from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.models.config import AutoencoderConfig
from smalti.training.experiment import LossConfig

SIZE = Preprocessing(image_size=4 * SIDE)


def model_of(name):
    """A small autoencoder whose bottleneck has seen a batch."""
    torch.manual_seed(0)
    networks = {"kind": "residual", "stride": 4, "width": 8}
    config = AutoencoderConfig(
        networks=networks, bottleneck=MEMBERS[name], likelihood={"kind": "gaussian"}, preprocessing=SIZE
    )
    model = Autoencoder(config)
    model(images(8))
    model.bottleneck.update()
    return model.eval()


def images(count, seed=0):
    return torch.rand(count, 3, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_bottleneck_that_stops_the_gradient_has_a_remedy(name):
    """No gradient reaches the encoder through codes, or through a z that is a number; with the remedy some does."""
    model = model_of(name)
    with torch.no_grad():  # all features of a network this small are in the middle cell of FSQ, which is 0 there
        model.encoder[-1].weight.mul_(4)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    path = gradient_path(model, images(4))
    stops = isinstance(model.bottleneck, DiscreteBottleneck) or model.bottleneck.random_posterior
    assert path.blocked == (0 if stops else None)
    assert path.passed > 0
    assert stops == (model.bottleneck.in_words.gradient_stop != "nowhere")
    assert all(model.bottleneck.in_words)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("name", MEMBERS)
def test_the_relaxation_gap_follows_the_temperature(name):
    model = model_of(name)
    if not model.bottleneck.relaxes:
        assert relaxation(model, images(4), LossConfig()) is None
        return
    before = copy.deepcopy(model.state_dict())
    found = relaxation(model, images(8), LossConfig())
    rows = found["rows"]
    assert [row["temperature"] for row in rows] == list(TEMPERATURES)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    with torch.no_grad():
        codes = model.bottleneck.encode(model.features(images(8)))
        nll = model.likelihood.nll(model.decoder(model.bottleneck.decode(codes)), images(8)).mean().item()
    assert found["codes_distortion_nats"] == pytest.approx(nll, rel=1e-5)
    away = [abs(row["relaxed_distortion_nats"] - found["sampled_distortion_nats"]) for row in rows]
    assert away[-1] < away[0]  # a cold relaxation is a sample


def test_only_what_relaxes_has_a_temperature():
    for name in MEMBERS:
        bottleneck = model_of(name).bottleneck
        if bottleneck.relaxes:
            bottleneck.set_temperature(0.25)
            assert bottleneck.temperature == 0.25
    with pytest.raises(SmaltiError, match="no temperature"):
        model_of("identity").bottleneck.set_temperature(1.0)


class Means(FeatureNetwork):
    """The means of the channels, and of their squares."""

    set_metrics = ("fd_means", "kid_means")

    def __init__(self, device="cpu"):
        pass

    def look(self, images):
        return torch.cat([images.mean((2, 3)), images.square().mean((2, 3))], 1)

    def pooled(self, seen):
        return seen

    def about(self):
        return {}


def test_sets_are_measured_as_an_observer_measures_them(image_folder):
    model, data, networks = model_of("gaussian"), str(image_folder), {"means": Means()}
    train = some_images(data, "train", SIZE, 64)
    samplers = {"of p(z)": sampler_of_model(model), "noise": sampler_of_noise(model, train)}
    found = measure_sets(data, "train", 8, SIZE, networks, samplers, {"again": model.reconstruct})
    observer, originals = Observer(networks), some_images(data, "train", SIZE, 8)
    places = torch.linspace(0, len(train) - 1, 8).long()
    observer.add("split", originals)
    for name, made in (
        ("of p(z)", model.sample(8, seed=0)),
        ("noise", samplers["noise"](places)),
        ("again", model.reconstruct(originals)),
    ):
        assert torch.equal(found.shown[name], made)
        observer.add(name, made)
        wanted = observer.distances(name, "split", paired=name == "again")
        assert found.distances[name]["fd_means"].value == pytest.approx(wanted["fd_means"].value, rel=1e-5)
        assert found.distances[name]["kid_means"].value == pytest.approx(wanted["kid_means"].value, rel=1e-5)
    assert found.num_images == 8 and set(found.distances) == {"of p(z)", "noise", "again", REAL}


def test_noise_has_the_moments_of_latents(image_folder):
    model = model_of("identity")
    shown = []
    model.decode_latents = lambda latents: shown.append(latents) or latents
    train = some_images(str(image_folder), "train", SIZE, 64)
    sampler_of_noise(model, train)(torch.arange(512))
    latents = model.encode_latents(train)
    for moment, tolerance in ((torch.mean, 0.1), (torch.std, 0.1)):
        wanted = moment(latents, dim=(0, 2, 3))
        assert torch.allclose(moment(shown[0], dim=(0, 2, 3)), wanted, atol=tolerance * latents.std().item())


def test_pca_is_a_baseline_only_where_it_reduces(image_folder):
    data = str(image_folder)
    found = pca_baseline(data, "test", SIZE, 5, 2)
    assert found.left_out == "" and found.metrics["psnr_db"] > 5 and found.shown.shape == (2, 3, 16, 16)
    assert "nothing is reduced" in pca_baseline(data, "test", SIZE, SIZE.num_dims, 2).left_out
    assert "reduces nothing" in pca_baseline(data, "test", SIZE, 500, 2).left_out
