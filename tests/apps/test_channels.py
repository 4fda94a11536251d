"""Any number of channels, stated values and oblong sizes, from the training to the pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import pixels_of
from smalti.apps.cli import main
from smalti.files import read_json
from smalti.images.pixels import as_colour
from smalti.models.likelihoods import LIKELIHOODS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """For each number of channels a folder of arrays of 40 x 48, with values from 0 to 4,000."""
    place = tmp_path_factory.mktemp("bands")
    for channels in (1, 2, 3, 4, 13):
        (place / str(channels)).mkdir()
        for index in range(8):
            smooth = Image.fromarray(np.random.default_rng(index).random((5, 6)).astype(np.float32)).resize((48, 40))
            bands = [np.asarray(smooth).clip(0, 1) * (band + 1) / channels * 4000 for band in range(channels)]
            np.save(place / str(channels) / f"{index}.npy", np.stack(bands, -1).astype(np.int16))
    return place


def shown(path):
    """(W, H) and the mode of a picture."""
    with Image.open(path) as image:
        return image.size, image.mode


TINY = ["--steps", "2", "--batch_size", "2", "--log_every", "2", "--validate_every", "0"]
SMALL = [*TINY, "--width", "8", "--stride", "4", "--codebook_size", "8"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_any_number_of_channels_from_training_to_pictures(channels, folders, tmp_path, capsys):
    data, run = str(folders / str(channels)), str(tmp_path / "run")
    images = ["--channels", str(channels), "--image_size", "8x16", "--value_range", "0:4000"]
    assert main(["train", "vqvae", "--data", data, *images, *SMALL, "--out", run]) == 0
    assert read_json(tmp_path / "run" / "config.json")["preprocessing"] == {
        "image_size": "8x16", "channels": channels, "binarize": "none", "value_range": "0:4000",
    }  # fmt: skip
    assert main(["evaluate", run, "--data", data, "--split", "all", "--distances", "none"]) == 0
    assert "8x16" in capsys.readouterr().out
    codes, out = str(tmp_path / "codes.npz"), tmp_path / "out"
    assert main(["encode", run, data, "--out", codes]) == 0
    assert main(["decode", run, codes, "--out", str(out)]) == 0
    if channels in (1, 3):
        assert shown(out / "3.png") == ((48, 40), "L" if channels == 1 else "RGB")
    else:
        made = np.load(out / "3.npy")
        assert made.shape == (40, 48, channels) and made.dtype == np.float32 and 0 <= made.min() <= made.max() <= 4000
        assert pixels_of(out / "3.npy", channels, value_range=(0, 4000)).shape == made.shape
    assert main(["reconstruct", run, f"{data}/3.npy", "--out", str(out / "beside")]) == 0
    assert (out / "beside" / "3.npy").exists() == (channels not in (1, 3))
    assert shown(out / "beside" / "3.png") == ((98, 40), "RGB")
    status = main(["compress", run, data, "--out", str(tmp_path / "a.smalti")])
    assert status == (0 if channels in (1, 3) else 1)
    if status:
        assert f"{channels} channels" in capsys.readouterr().err


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_every_likelihood_takes_any_number_of_channels(kind):
    for channels in (1, 2, 4, 13):
        likelihood = LIKELIHOODS.build({"kind": kind}, channels=channels)
        parameters, images = torch.randn(2, likelihood.num_parameters, 3, 5), torch.rand(2, channels, 3, 5)
        images = images.round() if kind == "bernoulli" else images
        assert likelihood.nll(parameters, images).isfinite().all()
        assert likelihood.mean(parameters).shape == images.shape


def test_networks_of_colours_see_the_first_bands(folders, tmp_path):
    options = ["--data", str(folders / "4"), "--channels", "4", "--image_size", "32", "--value_range", "0:4000"]
    photo = ["--perceptual", "effnet", "--adversarial_weight", "0.1"]
    assert main(["train", "vqvae", *options, *photo, *SMALL, "--out", str(tmp_path)]) == 0
    images = torch.rand(2, 5, 16, 16)
    assert torch.equal(as_colour(images), images[:, :3])
    assert torch.equal(as_colour(images[:, :2]), images[:, :1].expand(-1, 3, -1, -1))


def test_pixel_priors_take_bands_ranges_and_oblong_sizes(folders, tmp_path, capsys):
    options = ["--image_size", "4x8", "--image_channels", "2", "--value_range", "0:4000", "--levels", "4"]
    data, run = ["--data", str(folders / "2")], str(tmp_path / "prior")
    prior = ["train", "pixelcnn", "--tokenizer", "pixels", *data, *options, *TINY, "--channels", "8", "--layers", "1"]
    assert main([*prior, "--out", run]) == 0
    assert read_json(tmp_path / "prior" / "config.json")["grid"] == [4, 16]
    assert main(["evaluate", run, *data, "--split", "all"]) == 0
    assert main(["sample", run, "--num", "2", "--out", str(tmp_path / "sheet.png")]) == 0
    assert shown(tmp_path / "sheet.png")[0] == (2 * (2 * 8) + 2, 2 * 4)


def test_a_prior_of_oblong_codes(folders, tmp_path):
    data, run = ["--data", str(folders / "3")], str(tmp_path / "vq")
    images = ["--image_size", "8x16", "--value_range", "0:4000"]
    assert main(["train", "vqvae", *data, *images, *SMALL, "--out", run]) == 0
    prior = str(tmp_path / "prior")
    network = ["--width", "8", "--layers", "1", "--heads", "2"]
    assert main(["train", "transformer", "--tokenizer", run, *data, *TINY, *network, "--out", prior]) == 0
    assert read_json(tmp_path / "prior" / "config.json")["grid"] == [2, 4]
    known = ["--known", str(folders / "3" / "1.npy"), "--mask", "left-half"]
    assert main(["sample", prior, "--num", "2", *known, "--out", str(tmp_path / "sheet.png")]) == 0
    names = [str(folders / "3" / f"{index}.npy") for index in (1, 2)]
    assert main(["interpolate", run, *names, "--steps", "3", "--out", str(tmp_path / "walk.png")]) == 0


@pytest.mark.parametrize("recipe", ["mlp_vae", "dvae"])
def test_oblong_images_of_other_systems(recipe, folders, tmp_path):
    data = ["--data", str(folders / "1"), "--channels", "1", "--image_size", "8x16", "--value_range=-5:4000"]
    assert main(["train", recipe, *data, *TINY, "--out", str(tmp_path)]) == 0
    assert main(["evaluate", str(tmp_path), "--split", "all", "--distances", "none"]) == 0
    if recipe == "mlp_vae":
        assert main(["sample", str(tmp_path), "--num", "2", "--out", str(tmp_path / "sheet.png")]) == 0
        assert shown(tmp_path / "sheet.png")[0] == (2 * 2 * 16 + 2, 2 * 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image_size", "18"], "image sizes must be multiples of 4, not 18x18"),
        (["--image_size", "16x18"], "image sizes must be multiples of 4, not 16x18"),
        (["--image_size", "16x"], "image_size must be a side in pixels or HEIGHTxWIDTH"),
        (["--channels", "0"], "channels must be at least 1"),
        (["--value_range", "5:1"], "value_range must be LOW:HIGH"),
    ],
)
def test_what_cannot_be_is_said_before_an_image_is_read(options, message, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("smalti.data.batches.fit", None)
    assert main(["train", "vqvae", "--data", str(folders / "3"), *options, *SMALL, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_other_channels_and_values_than_stated_are_said(folders, tmp_path, capsys):
    for options, message in ((["--value_range", "0:4000"], "4 bands where 3"), (["--channels", "4"], "--value_range")):
        assert main(["train", "vqvae", "--data", str(folders / "4"), *options, *SMALL, "--out", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err
