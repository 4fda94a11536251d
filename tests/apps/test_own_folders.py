"""Other people's folders through the command line: what is said, one image, an unquoted pattern, odd names."""

import json
import os

import pytest
from PIL import Image

from smalti.apps.cli import main
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import vqvae

from ..conftest import draw_image

TINY = ["--image_size", "16", "--width", "8", "--steps", "2", "--batch_size", "2", "--codebook_size", "8"]


@pytest.fixture
def photos(tmp_path):
    """Two classes in two splits, a file that is no image, a photograph of a telephone, and an odd name."""
    for split, count in (("train", 4), ("test", 2)):
        for index in range(count):
            path = tmp_path / "photos" / "images" / split / "cat" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(index, (16, 16))).save(path)
    odd = os.path.join(os.fsencode(path.parent), b"\xff\n.png")
    with open(odd, "wb") as file:
        file.write(path.read_bytes())
    (tmp_path / "photos" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    return tmp_path / "photos"


def run(capsys, *argv):
    """Exit status, stdout and stderr."""
    status = main([str(word) for word in argv])
    return status, *capsys.readouterr()


def test_info_shows_tables_with_counts_and_examples(photos, capsys):
    status, out, _ = run(capsys, "info", photos)
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["train", "4", "the", "folder", "images/train", "images/train/cat/0.png"] in rows
    assert ["cat", "7", "images/test/cat/0.png"] in rows
    assert "an image that smalti does not read (.heic)" in out and "pip install 'smalti[heif]'" in out
    told = json.loads(run(capsys, "info", photos, "--json")[1])
    assert told["splits"] == {"train": 4, "validation": 0, "test": 3} and told["images_read"] == 7
    assert [row["images"] for row in told["class_rows"]] == [7]


def test_train_says_in_one_line_what_the_data_are(photos, tmp_path, capsys):
    status, _, err = run(capsys, "train", "vqvae", "--data", photos, "--out", tmp_path / "run", *TINY)
    line = next(line for line in err.splitlines() if "by the folder images/train" in line)
    assert status == 0 and "test 3 (by the folder images/test)" in line and "left out 1 file that is no image" in line


def test_one_image_is_overfitted_and_evaluated(tmp_path, capsys):
    (tmp_path / "one").mkdir()
    Image.fromarray(draw_image(0, (16, 16))).save(tmp_path / "one" / "b.png")
    status, _, err = run(capsys, "train", "vqvae", "--data", tmp_path / "one", "--out", tmp_path / "run", *TINY)
    assert status == 0 and "nothing is validated while training" in err
    assert "no images in the validation split (train 1, validation 0, test 0)" in err


def test_verbs_take_odd_names_and_say_what_they_left_out(photos, tmp_path, capsys):
    Autoencoder(vqvae(image_size=16, width=8, codebook_size=8, start="random").model).save_pretrained(
        tmp_path / "model"
    )
    for out, given in (("c.npz", [photos]), ("c.parquet", ["--data", photos]), ("d.npz", ["--data", photos])):
        status, told, err = run(capsys, "encode", tmp_path / "model", *given, "--out", tmp_path / out, "--json")
        assert status == 0 and json.loads(told)["num_images"] == 7
        assert "left out 1 file that is no image that smalti reads (.heic 1); .heic: pip install" in err
    status, told, err = run(capsys, "compress", tmp_path / "model", photos, "--out", tmp_path / "c.smalti", "--json")
    assert status == 0 and json.loads(told)["num_images"] == 7 and "left out 1 file" in err


@pytest.mark.parametrize("command", ["info", "train vqvae --out run --data", "evaluate run --test", "train ae --test"])
def test_a_pattern_without_quotes_is_one_line_with_the_remedy(command, tmp_path, capsys):
    files = [tmp_path / f"a-{number}.parquet" for number in range(3)]
    for file in files:
        file.touch()
    status, _, err = run(capsys, *command.split(), *files)
    word = command.split()[-1]
    assert status == 1 and f"{word} takes one name and was given 3 files" in err and len(err.splitlines()) == 1
    assert f"put the pattern in quotes, as {word} '{tmp_path}/*.parquet'" in err
