"""What decoders for photographs draw, new and after a hundred quick steps: no more grid than there is in the images."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from smalti.data.config import DataConfig
from smalti.evaluation.artefacts import border_ratio, period2_energy, ring_error
from smalti.images.pixels import to_float, to_uint8
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.models.features import FEATURES
from smalti.models.networks import NETWORKS
from smalti.training.experiment import Experiment, OptimizerConfig, PhotoConfig
from smalti.training.loop import train

SIZE, STEPS, BATCH, RATE = 32, 100, 8, 2e-3
MOST = 1.2  # times what the images have
FOR_PHOTOGRAPHS = {
    "residual": {"stride": 8, "patch": 4, "width": 32, "depth": 1, "convolutions": 2, "block_ratio": 2,
                 "last_kernel": 3, "padding": "replicate"},
    "vqgan": {"width": 16, "multipliers": (1, 2), "patch": 4, "groups": 8, "depth": 1},
}  # fmt: skip
FRAMED = {"vqgan"}  # zeros around their features, as other weights of theirs need: the ring is a little worse
NOT_FOR_THEM = {"strided", "mlp"}  # transposed convolutions, as their authors have them; one size only


def images(count=64):
    """Fields that are smooth at several scales, an edge through each, and some grain: (count, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(count, 3, SIZE, SIZE)
    for cells in (4, 8, 16, 32):
        field = torch.randn(count, 3, cells, cells, generator=generator) / cells
        total += F.interpolate(field, size=SIZE, mode="bicubic")
    down, right, offset = torch.randn(3, count, 1, 1, generator=generator)
    place = torch.arange(SIZE) - SIZE / 2
    side = (down * place[:, None] + right * place + offset * SIZE / 8).sign()[:, None]
    edges = side * torch.randn(count, 3, 1, 1, generator=generator)
    grain = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return (0.5 + 0.4 * total + 0.1 * edges + 0.02 * grain).clamp(0, 1)


@pytest.fixture(scope="module")
def data():
    return to_float(to_uint8(images()))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    place = tmp_path_factory.mktemp("fields")
    for index, pixels in enumerate(to_uint8(data)):
        Image.fromarray(pixels.numpy()).save(place / f"{index:02d}.png")
    return place


class Edges(torch.nn.Module):
    """A feature network of two small stages with random kernels, in the place of a trained one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, 2), torch.nn.Conv2d(8, 8, 3, 2)

    def forward(self, seen):
        first = self.first(seen).relu()
        return [first, self.second(first).relu()]


TERMS = {
    "likelihood alone": PhotoConfig(),
    "both terms": PhotoConfig(perceptual="effnet", adversarial_weight=0.1, discriminator_width=8),
}


def experiment(kind, folder, photo=TERMS["likelihood alone"]):
    """A short training with no bottleneck but its channels."""
    model = AutoencoderConfig(
        networks={"kind": kind, **FOR_PHOTOGRAPHS[kind]},
        bottleneck={"kind": "identity", "channels": 16},
        likelihood={"kind": "gaussian"},
        preprocessing=Preprocessing(image_size=SIZE),
    )
    optimizer = OptimizerConfig(learning_rate=RATE, warmup=10, ema_decay=0.9)
    short = Experiment(data=DataConfig(data=str(folder)), model=model, optimizer=optimizer, photo=photo)
    return short.with_settings(steps=STEPS, batch_size=BATCH, sample_every=0, validate_every=0, checkpoint_every=STEPS)


def value(ratio):
    return (ratio[0].sum() / ratio[1].sum()).item()


def held_to(model, data, *names):
    """Reconstructions have at most 1.2 times the numbers of the images, whose ring error is that of grey."""
    with torch.no_grad():
        made, grey = model.eval().reconstruct(data), data.mean().expand_as(data)
    assert made.std() > 0.01
    measured = {
        "period2": (value(period2_energy(made)), value(period2_energy(data))),
        "ring": (value(ring_error(data, made)), value(ring_error(data, grey))),
        "border": (value(border_ratio(made, model.stride)), value(border_ratio(data, model.stride))),
    }
    for name in names:
        found, of_data = measured[name]
        assert found <= MOST * of_data, f"{name}: {found:.2f}, the images' is {of_data:.2f}"


def test_every_kind_of_networks_is_held_to_it_or_said_not_to_be():
    assert {*FOR_PHOTOGRAPHS, *NOT_FOR_THEM} == {
        name for name in NETWORKS if NETWORKS[name].__module__.startswith("smalti.")
    }


@pytest.mark.parametrize("kind", FOR_PHOTOGRAPHS)
def test_a_new_decoder_draws_no_pattern_of_two_pixels_and_no_frame(kind, data, folder):
    torch.manual_seed(0)
    held_to(Autoencoder(experiment(kind, folder).model), data, "period2", "ring")


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("kind", FOR_PHOTOGRAPHS)
def test_after_some_steps_it_draws_none(kind, terms, data, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(FEATURES, "effnet", Edges)
    train(experiment(kind, folder, TERMS[terms]), tmp_path / "run", progress=False)
    held_to(Autoencoder.from_pretrained(tmp_path / "run"), data, "period2", *(["ring"] if kind not in FRAMED else []))


def test_a_decoder_without_the_remedies_fails_these(data, folder, monkeypatch):
    """Pixels of a patch from unrelated kernels: what `unfolding` is for."""
    monkeypatch.setitem(FOR_PHOTOGRAPHS, "residual", {**FOR_PHOTOGRAPHS["residual"], "last_kernel": 1})
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match="period2"):
        held_to(Autoencoder(experiment("residual", folder).model), data, "period2")
