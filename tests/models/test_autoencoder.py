import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.errors import SmaltiError
from smalti.images.reading import to_pil
from smalti.models.autoencoder import Autoencoder, map_by_size
from smalti.models.config import AutoencoderConfig, Preprocessing
from smalti.models.networks import NETWORKS, ResidualNetworks, StridedNetworks

NETWORKS_SPEC = {"kind": "residual", "width": 16, "depth": 1, "patch": 2, "convolutions": 2}
SYSTEMS = {
    "ae": {"kind": "identity", "channels": 8},
    "vae": {"kind": "gaussian", "channels": 8},
    "vqvae": {"kind": "vector_quantizer", "codebook_size": 32, "code_dim": 8},
    "dvae": {"kind": "categorical", "codebook_size": 32, "code_dim": 8},
}


def make(system="dvae", **changes):
    torch.manual_seed(0)
    return Autoencoder(AutoencoderConfig(**{"networks": NETWORKS_SPEC, "bottleneck": SYSTEMS[system], **changes}))


@pytest.fixture(params=SYSTEMS)
def model(request):
    return make(request.param)


@pytest.mark.parametrize("likelihood", ["gaussian", "logit_laplace", "logistic_mixture"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_forward_backward_for_every_system_and_likelihood(system, likelihood):
    model = make(system, likelihood={"kind": likelihood})
    images = torch.rand(2, 3, 16, 16)
    parameters, bottleneck = model(images)
    loss = model.likelihood.nll(parameters, images).sum() + bottleneck.kl.sum()
    loss.backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert untouched == []


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (1, 5), (64, 20)])
def test_any_size_comes_back_exactly(model, size):
    images = torch.rand(2, 3, *size)
    assert model.reconstruct(images).shape == images.shape
    if isinstance(SYSTEMS, dict) and model.config.bottleneck["kind"] in ("vector_quantizer", "categorical"):
        codes = model.encode(images)
        assert codes.shape == (2, -(-size[0] // 4), -(-size[1] // 4))
        assert torch.equal(model.decode(codes, size), model.reconstruct(images))


def test_codes_do_not_depend_on_company_or_threads():
    model = make("vqvae")
    images = torch.stack([torch.from_numpy(draw_image(i)).permute(2, 0, 1) / 255 for i in range(64)])
    together = model.encode(images)
    alone = torch.cat([model.encode(images[i : i + 1]) for i in range(64)])
    assert torch.equal(together, alone)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(model.encode(images), together)
    finally:
        torch.set_num_threads(threads)


def test_using_the_model_does_not_change_its_mode_or_its_noise():
    model = make("dvae").train()
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(model.reconstruct(images), model.reconstruct(images))
    assert model.training and model.bottleneck.training


def test_every_kind_of_image_gives_the_same_codes(tmp_path):
    model = make("dvae")
    pixels = draw_image(3)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = model.encode(tensor)
    kinds = [path, str(path), Image.fromarray(pixels), pixels, [path], pixels[None], tensor[None], path.read_bytes(),
             torch.from_numpy(pixels).permute(2, 0, 1), [tensor]]  # fmt: skip
    for images in kinds:
        assert torch.equal(model.encode(images), expected), type(images)
    assert model.encode([path, pixels, tensor]).shape[0] == 3


def test_grey_images_are_made_colour():
    model = make("ae")
    assert model.reconstruct(np.zeros((16, 16), dtype=np.uint8)).shape == (1, 3, 16, 16)


def test_mixed_sizes_need_encode_many():
    model = make("dvae")
    images = [torch.rand(3, 16, 16), torch.rand(3, 20, 9), torch.rand(3, 16, 16)]
    with pytest.raises(SmaltiError, match="16x16, 20x9.*encode_many"):
        model.encode(images)
    encoded = model.encode_many(images)
    assert [item.size for item in encoded] == [(16, 16), (20, 9), (16, 16)]
    for image, item, back in zip(images, encoded, model.decode_many(encoded), strict=True):
        assert torch.equal(item.codes, model.encode(image)[0])
        assert back.shape == image.shape
        torch.testing.assert_close(back, model.reconstruct(image)[0])
    assert [r.shape for r in model.reconstruct_many(images)] == [image.shape for image in images]


def test_map_by_size_keeps_order_and_bounds_batches():
    seen = []

    def function(batch):
        seen.append(tuple(batch.shape))
        return list(batch.flatten(1).sum(1))

    images = [torch.full((1, 2 + i % 2, 2), float(i)) for i in range(7)]
    results = map_by_size(function, images, batch_size=2)
    assert [r.item() for r in results] == [image.sum().item() for image in images]
    assert max(shape[0] for shape in seen) == 2


def test_continuous_models_say_that_they_have_no_codes():
    for system in ("ae", "vae"):
        with pytest.raises(SmaltiError, match="no codes"):
            make(system).encode(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 3, 16, 16) * 255, r"\[0, 1\].*divide by 255"),
        (torch.full((1, 3, 16, 16), float("nan")), r"\[0, 1\]"),
        (torch.rand(1, 2, 16, 16), "2 bands where 3"),
        (torch.rand(16), "tensors, or"),
        (42, "int"),
        ([], "got none"),
    ],
)
def test_bad_images_are_one_line_errors(images, message):
    with pytest.raises(SmaltiError, match=message):
        make("ae").reconstruct(images)


def test_save_and_load_give_the_same_model(model, tmp_path):
    images = torch.rand(2, 3, 16, 16)
    model.save_pretrained(tmp_path, card="# card\n")
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.reconstruct(images), model.reconstruct(images))
    assert loaded.config == model.config or dataclasses.asdict(loaded.config) == dataclasses.asdict(model.config)
    assert len(loaded.source_hash) == 64
    assert (tmp_path / "README.md").read_text() == "# card\n"


def test_truncated_foreign_and_mismatched_weights_are_named(tmp_path):
    model = make("dvae")
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    good = weights.read_bytes()
    for bad in (b"", good[:100], good[: len(good) // 2], b"\x80\x04pickle?" * 20):
        weights.write_bytes(bad)
        with pytest.raises(SmaltiError, match="model.safetensors is cut off or not a safetensors file"):
            Autoencoder.from_pretrained(tmp_path)
    make("vae").save_pretrained(tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(SmaltiError, match="does not belong to"):
        Autoencoder.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(SmaltiError, match="no model.safetensors yet"):
        Autoencoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"width"', '"widht"', "unknown key 'widht'; did you mean 'width'"),
        ('"categorical"', '"categorycal"', "unknown kind 'categorycal'; did you mean 'categorical'"),
        ('"likelihood"', '"likelyhood"', "unknown key 'likelyhood'; did you mean 'likelihood'"),
        ('"format": 1', '"format": 7', "format 7.*update smalti"),
        ('"autoencoder"', '"prior"', "does not describe a smalti autoencoder"),
        ("{", "", "not readable JSON"),
    ],
)
def test_bad_configs_are_named(tmp_path, old, new, message):
    make("dvae").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SmaltiError, match=message):
        Autoencoder.from_pretrained(tmp_path)


def test_missing_folder_is_named():
    with pytest.raises(SmaltiError, match="/no/where: no such folder"):
        Autoencoder.from_pretrained("/no/where")


def test_hub_names_without_a_network_are_one_line_errors(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SmaltiError, match="somebody/something: no such folder here") as error:
        Autoencoder.from_pretrained("somebody/something")
    assert "\n" not in str(error.value)


def test_push_to_hub_uploads_the_folder(monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            uploaded["repo"] = repo_id

        def upload_folder(self, repo_id, folder_path):
            import os

            uploaded["files"] = sorted(os.listdir(folder_path))
            return "address"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert make("ae").push_to_hub("me/mine") == "address"
    assert uploaded == {"repo": "me/mine", "files": ["README.md", "config.json", "model.safetensors"]}


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize(("stride", "patch"), [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 2)])
def test_any_power_of_two_stride(stride, patch):
    networks = ResidualNetworks(stride=stride, patch=patch, width=8, depth=1)
    features = networks.encoder(3, 5)(torch.rand(1, 3, 16, 16))
    assert features.shape == (1, 5, 16 // stride, 16 // stride)
    assert networks.decoder(5, 6)(features).shape == (1, 6, 16, 16)


def test_dalles_own_networks_can_be_built():
    """Group widths 256 to 2048, gain 1/64, 7x7 stem, 1x1 next to the relaxation (built on the meta device)."""
    networks = ResidualNetworks(stride=8, width=256, depth=2, stem_kernel=7)
    assert networks.widths == [256, 512, 1024, 2048] and networks.gain == 1 / 64
    with torch.device("meta"):
        encoder = networks.encoder(3, 8192)
    kernels = [block.kernel_size for block in encoder.modules() if isinstance(block, torch.nn.Conv2d)]
    assert kernels[0] == (7, 7) and kernels[-1] == (1, 1)
    assert sum(p.numel() for p in encoder.parameters()) == 53_786_240


@pytest.mark.parametrize(
    "bad", [{"stride": 3}, {"patch": 8}, {"stride": 0}, {"width": 2}, {"stem_kernel": 4}, {"depth": 0}]
)
def test_impossible_networks_name_the_value(bad):
    with pytest.raises(SmaltiError):
        ResidualNetworks(**bad)


def test_bf16_encoder_gives_nearly_the_same_features():
    """The residual stream stays in float32, so bf16 costs little."""
    model = make("ae")
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        exact = model.features(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model.features(images)
    assert rounded.dtype == torch.float32
    assert ((exact - rounded).norm() / exact.norm()).item() < 0.01


def test_mlp_takes_one_size_only():
    spec = {"kind": "mlp", "image_size": 8, "hidden": [16]}
    preprocessing = Preprocessing(image_size=8, channels=1)
    model = make("vae", networks=spec, preprocessing=preprocessing, likelihood={"kind": "bernoulli"})
    assert model.reconstruct(torch.rand(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    with pytest.raises(SmaltiError, match="8x8 images only, not 16x16"):
        model.reconstruct(torch.rand(1, 1, 16, 16))
    with pytest.raises(SmaltiError, match="8x8 images only, not 9x5"):
        model.reconstruct(torch.rand(1, 1, 9, 5))


def test_mlp_with_a_grid_has_several_variables():
    networks = NETWORKS["mlp"](image_size=8, hidden=(16,), grid=(1, 5))
    features = networks.encoder(1, 3)(torch.rand(2, 1, 8, 8))
    assert features.shape == (2, 3, 1, 5)
    assert networks.decoder(3, 1)(features).shape == (2, 1, 8, 8)


def test_to_pil_gives_pictures():
    colour, grey = to_pil(torch.rand(1, 3, 4, 6))[0], to_pil(torch.rand(1, 4, 6))[0]
    assert (colour.size, colour.mode, grey.mode) == ((6, 4), "RGB", "L")


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_strided_networks_mirror_each_other(stride):
    networks = StridedNetworks(stride=stride, width=8, depth=1, residual_channels=4)
    features = networks.encoder(3, 5)(torch.rand(2, 3, 16, 16))
    assert features.shape == (2, 5, 16 // stride, 16 // stride)
    assert networks.decoder(5, 6)(features).shape == (2, 6, 16, 16)


def test_strided_networks_have_the_size_of_the_authors():
    """Sonnet's example: 128 hidden channels, two residual blocks of 32, 64 features."""
    networks = StridedNetworks()
    count = sum(parameter.numel() for parameter in networks.encoder(3, 64).parameters())
    down = (3 * 64 + 64 * 128) * 16 + 64 + 128
    blocks = 2 * (128 * 32 * 9 + 32 + 32 * 128 + 128)
    assert count == down + 128 * 128 * 9 + 128 + blocks + 128 * 64 + 64


def test_bad_strided_networks_are_refused():
    with pytest.raises(SmaltiError, match="stride that is a power of two.*stride=6"):
        StridedNetworks(stride=6)
