"""`smalti sample` and `smalti interpolate` of autoencoders, from the command line."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from conftest import draw_image
from smalti.apps.cli import main
from smalti.apps.encodedfile import read_encoded
from smalti.data.sources import open_data
from smalti.images.pixels import to_uint8
from smalti.models.autoencoder import Autoencoder

TRAIN = "--steps 4 --batch_size 4 --image_size 16 --width 8 --log_every 2"


@pytest.fixture(scope="module")
def place(tmp_path_factory, image_folder):
    """A tiny run of each system, and three pictures of other sizes than the models'."""
    folder = tmp_path_factory.mktemp("latents")
    for name in ("ae", "vae", "vqvae", "dvae"):
        small = "--codebook_size 16" if name in ("vqvae", "dvae") else "--latent_channels 4"
        line = f"train {name} --data {image_folder} --out {folder / name} {TRAIN} {small}"
        assert main(shlex.split(line)) == 0
    for index, size in enumerate([(20, 33), (16, 16), (40, 24)]):
        Image.fromarray(draw_image(index, size)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def smalti(place, capsys, monkeypatch):
    """Runs a command line in that place: (status, stdout, stderr)."""
    monkeypatch.chdir(place)

    def run(line):
        capsys.readouterr()
        status = main(shlex.split(line))
        return status, *capsys.readouterr()

    return run


def picture(path):
    with Image.open(path) as image:
        return np.array(image)


def test_a_vae_samples_from_its_prior(smalti, place):
    for name, options in (("a", ""), ("again", ""), ("seed", "--seed 1"), ("mean", "--temperature 0")):
        assert smalti(f"sample vae --num 9 {options} --out {name}.png")[0] == 0
    sheet = picture(place / "a.png")
    assert sheet.shape == (2 * 34 - 2, 8 * 34 - 2, 3)
    assert np.array_equal(sheet, picture(place / "again.png"))
    assert not np.array_equal(sheet, picture(place / "seed.png"))
    mean = picture(place / "mean.png")
    assert np.array_equal(mean[:32, :32], mean[:32, 34:66])
    assert not (place / "a.npz").exists()
    images = to_uint8(Autoencoder.from_pretrained(place / "vae").sample(9))
    assert np.array_equal(sheet[:32:2, 34:66:2], images[1].numpy())


@pytest.mark.parametrize("system", ["vqvae", "dvae"])
def test_a_discrete_system_samples_codes_that_decode_to_the_sheet(smalti, place, system):
    status, out, _ = smalti(f"sample {system} --num 3 --out {system}.png --json")
    assert status == 0 and json.loads(out)["written"] == [f"{system}.png", f"{system}.npz"]
    model = Autoencoder.from_pretrained(place / system)
    codes = read_encoded(place / f"{system}.npz", model.source_hash).values
    assert len(codes) == 3
    shown = to_uint8(model.decode(codes[2][None]))[0].numpy()
    assert np.array_equal(picture(place / f"{system}.png")[::2, 68::2], shown)


@pytest.mark.parametrize("system", ["vae", "dvae"])
def test_samples_around_an_image_come_after_it(smalti, place, system):
    assert smalti(f"sample {system} --like 1.png --num 2 --out {system}-like.png")[0] == 0
    sheet = picture(place / f"{system}-like.png")
    assert sheet.shape == (32, 3 * 34 - 2, 3)
    assert np.array_equal(sheet[::2, :32:2], picture(place / "1.png"))


@pytest.mark.parametrize("system", ["ae", "vae", "vqvae", "dvae"])
def test_an_interpolation_is_a_row_for_each_two_images(smalti, place, system):
    status, out, _ = smalti(f"interpolate {system} 0.png 1.png 2.png --steps 3 --out {system}-two.png --json")
    assert status == 0 and json.loads(out) == {"written": f"{system}-two.png", "steps": 3}
    two = picture(place / f"{system}-two.png")
    assert smalti(f"interpolate {system} 1.png 2.png --steps 3 --out {system}-one.png")[0] == 0
    one = picture(place / f"{system}-one.png")
    assert two.shape[1] == one.shape[1] and two.shape[0] > one.shape[0]
    assert np.array_equal(two[-60:-10, 110:], one[-60:-10, 110:])  # without the labels
    model = Autoencoder.from_pretrained(place / system)
    cells = [one[30, left] for left in (104 + 66 + 2, 104 + 3 * 66 + 2)]  # top left pixels of the ends, enlarged
    for cell, name in zip(cells, ("1.png", "2.png"), strict=True):
        from smalti.apps.imagefiles import fitted

        image = fitted([str(place / name)], model.config.preprocessing)
        assert np.array_equal(cell, to_uint8(model.reconstruct(image))[0, 1, 0].numpy())


def test_an_image_may_be_one_of_a_data_set(smalti, place):
    source = open_data("emoji", "test")
    Image.fromarray(source.read(12)).save(place / "twelve.png")
    for name, image in (("number", "emoji:12"), ("file", "twelve.png")):
        assert smalti(f"sample vae --like {image} --num 2 --out {name}.png")[0] == 0
    assert np.array_equal(picture(place / "number.png"), picture(place / "file.png"))
    assert smalti("interpolate vae emoji:12 0.png --steps 2 --out path.png")[0] == 0


def test_a_traversal_shows_the_active_channels_and_counts_the_others(smalti, place, image_folder):
    status, out, _ = smalti("interpolate vae 0.png --traverse --out moved.png --json")
    said = json.loads(out)
    assert status == 0 and 1 <= said["active_channels"] <= said["channels"] == 4 and said["steps"] == 7
    assert picture(place / "moved.png").shape[1] == 104 + 7 * 66 - 2 + 8
    assert smalti("interpolate vae 0.png --traverse --rows 1 --out one.png")[0] == 0
    assert np.array_equal(picture(place / "one.png")[:90, :200], picture(place / "moved.png")[:90, :200])
    assert picture(place / "one.png").shape[0] == 8 + 18 + 66 + 18 + 8
    given = smalti(f"interpolate vae 0.png --traverse --out given.png --data {image_folder}")
    assert given[0] == 0 and np.array_equal(picture(place / "given.png"), picture(place / "moved.png"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sample ae", "no p(z) to sample from; sample from a vae, or interpolate"),
        ("sample ae --like 0.png", "one point, the image's reconstruction: reconstruct it instead"),
        ("sample vqvae --like 0.png", "one point, the image's reconstruction: reconstruct it instead"),
        ("sample vqvae --temperature 0.5", "temperature 0.5 has no effect on a uniform p(z); leave it out"),
        ("sample vae --temperature -1", "0 or more, not -1"),
        ("sample vae --num 0", "--num must be at least 1, not 0"),
        ("sample vae --like none.png", "none.png: no such file"),
        ("sample none", "none: no such folder"),
        ("sample vae --text heart", "text heart has no effect on an autoencoder"),
        ("sample vae --top_k 3", "top_k 3 has no effect on an autoencoder"),
        ("sample vae --known 0.png --mask box", "known 0.png has no effect on an autoencoder"),
        ("sample vae --rounds 3", "rounds 3 has no effect on an autoencoder"),
        ("sample vae --tokenizer vqvae", "tokenizer vqvae has no effect on an autoencoder"),
        ("interpolate vae 0.png", "two images or more, not only 0.png; or give --traverse"),
        ("interpolate vae 0.png none.png", "none.png: no such file"),
        ("interpolate vae 0.png emoji:9999", "emoji:9999: the test split of emoji has images 0 to 334"),
        ("interpolate vae 0.png none:1", "none: no such"),
        ("interpolate vae 0.png 1.png --steps 1", "at least 2 steps, its ends, not 1"),
        ("interpolate vae 0.png 1.png --data emoji", "data emoji has no effect without --traverse"),
        ("interpolate vae 0.png 1.png --rows 8", "rows 8 has no effect without --traverse"),
        ("interpolate vae 0.png 1.png --traverse", "around one image, not 2"),
        ("interpolate vae 0.png --traverse --steps 1", "at least 2 steps and 1 row, not 1 and 32"),
        ("interpolate ae 0.png --traverse", "a Gaussian q(z|x), and this model has none; give a vae"),
        ("interpolate dvae 0.png --traverse", "a Gaussian q(z|x), and this model has none; give a vae"),
        ("interpolate none 0.png 1.png", "none: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(smalti, place, line, message):
    status, out, err = smalti(f"{line} --out bad.png")
    assert status == 1 and out == "" and message in err and len(err.strip().splitlines()) == 1
    assert not (place / "bad.png").exists()
