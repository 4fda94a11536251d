import math

import numpy as np
import pytest
import torch
from PIL import Image

import reference
from conftest import draw_image
from smalti.errors import SmaltiError
from smalti.evaluation.autoencoders import evaluate, importance_sampled_nll
from smalti.evaluation.metrics import ms_ssim, ssim
from smalti.images.fidelity import mse, psnr_db
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing

SYSTEMS = {
    "ae": {"kind": "identity", "channels": 4},
    "vae": {"kind": "gaussian", "channels": 4},
    "vqvae": {"kind": "vector_quantizer", "codebook_size": 16, "code_dim": 4},
    "dvae": {"kind": "categorical", "codebook_size": 16, "code_dim": 4},
}


def make(system, **changes):
    torch.manual_seed(0)
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    config = {
        "networks": networks,
        "bottleneck": SYSTEMS[system],
        "preprocessing": Preprocessing(image_size=16),
        **changes,
    }
    return Autoencoder(AutoencoderConfig(**config))


def test_psnr_and_mse_equal_the_numpy_reference():
    a, b = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    ours = psnr_db(mse(a, b))
    assert ours.tolist() == pytest.approx(
        [reference.psnr_db(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)], abs=1e-4
    )


def test_ssim_of_an_image_with_itself_is_one():
    images = torch.rand(2, 3, 16, 16)
    assert ssim(images, images).tolist() == pytest.approx([1.0, 1.0])
    assert ssim(images[..., :8], images[..., :8]) is None


@pytest.mark.parametrize("system", SYSTEMS)
def test_numbers_do_not_depend_on_the_batch_size_and_repeat(system, image_folder):
    model = make(system)
    results = [evaluate(model, str(image_folder), "all", batch_size=size)["metrics"] for size in (7, 40, 40)]
    assert results[1] == results[2]
    for name in ("psnr_db", "mse", "distortion_nats", "usage", "perplexity", "rate_nats"):
        if name in results[0]:
            assert results[0][name] == pytest.approx(results[1][name], rel=1e-5)


def test_perplexity_is_over_the_whole_set_not_a_mean_over_batches(image_folder):
    model = make("vqvae")
    result = evaluate(model, str(image_folder), "all", batch_size=3)["metrics"]
    from smalti.data.batches import Pixels
    from smalti.data.sources import open_data
    from smalti.images.pixels import to_float

    pixels = Pixels(open_data(image_folder), model.config.preprocessing)
    codes = model.encode(to_float(torch.from_numpy(pixels.memory))).numpy()
    assert result["perplexity"] == pytest.approx(reference.perplexity(codes), rel=1e-6)
    assert result["usage"] == len(np.unique(codes)) / 16


def test_elbo_is_its_terms(image_folder):
    for system in ("vae", "vqvae", "dvae"):
        metrics = evaluate(make(system), str(image_folder), "all")["metrics"]
        assert metrics["elbo_nats"] == pytest.approx(-(metrics["sampled_distortion_nats"] + metrics["rate_nats"]))
    vq = evaluate(make("vqvae"), str(image_folder), "all")["metrics"]
    assert vq["rate_nats"] == pytest.approx(16 * math.log(16), rel=1e-6)
    assert vq["nominal_bits_per_pixel"] == pytest.approx(16 * 4 / 256)
    two_part = (vq["distortion_bits"] + 16 * 4) / (3 * 256)  # bits of the pixels given the codes, and of the codes
    assert vq["bits_per_dim"] == pytest.approx(two_part, rel=1e-6)


def test_an_autoencoder_prints_no_elbo(image_folder):
    metrics = evaluate(make("ae"), str(image_folder), "all")["metrics"]
    assert "elbo_nats" not in metrics and "bits_per_dim" not in metrics and "usage" not in metrics
    with pytest.raises(SmaltiError, match="no likelihood"):
        evaluate(make("ae"), str(image_folder), "all", importance_samples=5)


def test_evaluation_says_what_it_measured(image_folder):
    result = evaluate(make("dvae"), str(image_folder), "train")
    assert result["num_images"] > 30 and result["split"] == "train" and result["data"] == str(image_folder)
    assert result["preprocessing"]["image_size"] == 16
    assert 0 <= result["metrics"]["bf16_equal_codes"] <= 1


def test_evaluation_changes_nothing_in_the_model(image_folder):
    for system in SYSTEMS:
        model = make(system).train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.random.get_rng_state()
        evaluate(model, str(image_folder), "all")
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert model.training and torch.equal(state, torch.random.get_rng_state())


def test_importance_sampling_is_exact_for_a_deterministic_posterior():
    """For a VQ-VAE all samples are the same, so the estimate is distortion + h w ln K whatever S is."""
    model, images = make("vqvae").eval(), torch.rand(2, 3, 16, 16)
    expected = model.likelihood.nll(model(images).parameters, images) + 16 * math.log(16)
    for samples in (1, 7, 120):
        torch.testing.assert_close(
            importance_sampled_nll(model, images, samples), expected.double().detach(), rtol=1e-5, atol=1e-2
        )


def test_importance_sampling_tightens_towards_the_exact_likelihood():
    """One categorical variable with 16 values: -ln p(x) by enumeration."""
    torch.manual_seed(0)
    model = make(
        "dvae",
        networks={"kind": "mlp", "image_size": 4, "hidden": [8]},
        preprocessing=Preprocessing(image_size=4, channels=1),
        likelihood={"kind": "bernoulli"},
    ).eval()
    images = (torch.rand(3, 1, 4, 4) > 0.5).float()
    with torch.no_grad():
        log_joint = torch.stack(
            [
                -model.likelihood.nll(model.decoder(model.bottleneck.decode(torch.full((3, 1, 1), k))), images)
                - math.log(16)
                for k in range(16)
            ]
        )
        exact = -log_joint.logsumexp(0).double()
        few = torch.stack([importance_sampled_nll(model, images, 1) for _ in range(200)]).mean(0)
        many = importance_sampled_nll(model, images, 20_000)
    assert (few >= exact - 0.05).all()
    torch.testing.assert_close(many, exact, rtol=0, atol=0.05)


def test_every_image_at_its_own_size(image_folder, tmp_path):
    """Of images that all have the size of the training it is the same evaluation."""
    folder, model = tmp_path / "mixed", make("vqvae")
    folder.mkdir()
    for index, size in enumerate([(16, 16)] * 3):
        Image.fromarray(draw_image(index, size)).save(folder / f"{index}.png")
    same, own = (evaluate(model, str(folder), "all", image_size=size) for size in (None, "original"))
    assert own["preprocessing"]["image_size"] == "original" and own["num_images"] == 3
    assert own["metrics"] == pytest.approx(same["metrics"], rel=1e-3)
    Image.fromarray(draw_image(3, (50, 71))).save(folder / "3.png")
    (folder / "4.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="skipped 1 bad"):
        mixed = evaluate(model, str(folder), "all", image_size="original")
    assert mixed["num_images"] == 4
    image = torch.from_numpy(draw_image(3, (50, 71))).permute(2, 0, 1)[None] / 255
    last = psnr_db(mse(model.reconstruct(image), image)).item()
    assert mixed["metrics"]["psnr_db"] == pytest.approx((3 * own["metrics"]["psnr_db"] + last) / 4, rel=1e-4)
    codes, pixels = 3 * 16 + 13 * 18, 3 * 256 + 50 * 71
    assert mixed["metrics"]["nominal_bits_per_pixel"] == pytest.approx(codes * 4 / pixels)
    (folder / "4.png").unlink()
    assert evaluate(model, str(folder), "all", image_size="8x24")["preprocessing"]["image_size"] == "8x24"


@pytest.mark.parametrize("system", SYSTEMS)
def test_large_images_are_measured_in_tiles_as_the_whole(system, tmp_path, monkeypatch):
    folder, model = tmp_path / "large", make(system)
    folder.mkdir()
    Image.fromarray(draw_image(0, (90, 130))).save(folder / "0.png")
    whole = evaluate(model, str(folder), "all", image_size="original")["metrics"]
    monkeypatch.setattr("smalti.models.tiles.WHOLE_PIXELS", 2000)
    monkeypatch.setattr("smalti.models.tiles.TILE", 64)
    monkeypatch.setattr("smalti.images.fidelity.AT_ONCE", 2000)
    tiled = evaluate(model, str(folder), "all", image_size="original")["metrics"]
    assert tiled.keys() == whole.keys()
    deterministic = [name for name in whole if not name.startswith(("relaxed", "sampled", "elbo", "bits_per_dim"))]
    assert {name: tiled[name] for name in deterministic} == pytest.approx(
        {name: whole[name] for name in deterministic}, rel=1e-3
    )
    assert tiled == pytest.approx(whole, rel=0.05)  # the noise of latents is another


@pytest.mark.parametrize("options", [{"importance_samples": 5}, {"samples": 5}])
def test_what_is_of_one_size_is_refused_at_original_sizes(options, image_folder):
    with pytest.raises(SmaltiError, match="image_size"):
        evaluate(make("vae"), str(image_folder), "all", image_size="original", **options)


@pytest.mark.parametrize("size", [(170, 201), (400, 165)])
def test_similarity_in_strips_is_that_of_the_package(size, monkeypatch):
    package = pytest.importorskip("pytorch_msssim")
    images = torch.from_numpy(draw_image(0, size)).permute(2, 0, 1)[None] / 255
    others = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    known = [getattr(package, name)(images, others, data_range=1.0, size_average=False) for name in ("ssim", "ms_ssim")]
    assert torch.equal(ssim(images, others), known[0]) and torch.equal(ms_ssim(images, others), known[1])
    monkeypatch.setattr("smalti.images.fidelity.AT_ONCE", 1000)
    monkeypatch.setattr("smalti.evaluation.metrics.STRIP", 20_000)
    assert torch.allclose(ssim(images, others), known[0], atol=1e-5)
    assert torch.allclose(ms_ssim(images, others), known[1], atol=1e-5)
