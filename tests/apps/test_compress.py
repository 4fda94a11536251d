"""`smalti compress`, `decompress` and `info FILE`, and what goes wrong."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import smalti
from smalti.apps.cli import main

from ..conftest import draw_image

TRAIN = ["--steps", "4", "--batch_size", "4", "--log_every", "2"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """A tiny tokenizer and its prior."""
    folder = tmp_path_factory.mktemp("codec")
    tiny = [*TRAIN, "--image_size", "16", "--width", "8", "--codebook_size", "16", "--data", str(image_folder)]
    assert main(["train", "vqvae", "--out", str(folder / "vqvae"), *tiny]) == 0
    own = [
        "--tokenizer",
        str(folder / "vqvae"),
        "--data",
        str(image_folder),
        *TRAIN,
        "--channels",
        "8",
        "--layers",
        "1",
    ]
    assert main(["train", "pixelcnn", "--out", str(folder / "prior"), *own]) == 0
    return folder


def answer(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_a_bad_image_of_a_folder_is_named_once(runs, image_folder, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "good.png").write_bytes(next(image_folder.rglob("*.png")).read_bytes())
    with pytest.warns(UserWarning, match="skipped 1 bad images"):
        made = smalti.compress(str(runs / "vqvae"), [str(tmp_path)], out=str(tmp_path / "one.smalti"), report=True)
    assert made["num_images"] == len(made["bad_images"]) == 1 and set(made["bytes_of_codes"]) > {"fixed"}


@pytest.mark.parametrize("run", ["vqvae", "prior"])
def test_a_folder_to_a_file_and_back(run, runs, image_folder, tmp_path, capsys):
    file = tmp_path / "all.smalti"
    made = answer(capsys, "compress", runs / run, image_folder, "--out", file, "--report")
    assert made["num_images"] == 40 and made["num_bytes"] == file.stat().st_size == sum(made["bytes"].values())
    assert made["coder"] == ("adaptive" if run == "vqvae" else "prior")
    assert set(made["bytes_of_codes"]) == {"fixed", "histogram", "adaptive"} | ({"prior"} if run == "prior" else set())
    assert made["bytes_of_codes"][made["coder"]] == made["bytes"]["codes"]

    told = answer(capsys, "info", file)
    assert told["num_images"] == 40 and told["sizes"] == ["32x32"] and told["bytes"] == made["bytes"]

    back = answer(capsys, "decompress", file, "--out", tmp_path / "back")  # the model is among those used here
    assert len(back["written"]) == 40 and "001.png" in {path.split("/")[-1] for path in back["written"]}
    one = answer(capsys, "decompress", file, "--out", tmp_path / "one.png", "--only", "3")
    assert one["written"] == [str(tmp_path / "one.png")]
    assert np.array_equal(np.asarray(Image.open(one["written"][0])), np.asarray(Image.open(back["written"][3])))


def test_lossless_gives_the_same_pixels(runs, tmp_path, capsys):
    picture = tmp_path / "a.png"
    Image.fromarray(draw_image(5, (37, 50))).save(picture)
    answer(capsys, "compress", runs / "vqvae", picture, "--out", tmp_path / "a.smalti", "--lossless")
    answer(capsys, "decompress", tmp_path / "a.smalti", "--out", tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(tmp_path / "b.png")))


def test_the_model_is_found_beside_the_file_or_named_when_it_is_not(runs, tmp_path, capsys, monkeypatch):
    picture = tmp_path / "a.png"
    Image.fromarray(draw_image(5)).save(picture)
    file = tmp_path / "there" / "a.smalti"
    made = answer(capsys, "compress", runs / "prior", picture, "--out", file)
    assert made["coder"] == "prior"
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "empty"))
    told = answer(capsys, "info", file)
    assert f"needs the prior with the hash {told['prior_hash']}" in error(
        capsys, "decompress", file, "--out", tmp_path / "b.png"
    )
    assert f"needs the model with the hash {told['model_hash']}" in error(
        capsys, "decompress", file, "--out", tmp_path / "b.png", "--prior", runs / "prior"
    )
    answer(
        capsys, "decompress", file, "--out", tmp_path / "b.png", "--prior", runs / "prior", "--model", runs / "vqvae"
    )
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "empty again"))
    for name in ("vqvae", "prior"):
        shutil.copytree(runs / name, file.parent / name)
    answer(capsys, "decompress", file, "--out", tmp_path / "c.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_nothing_is_overwritten_and_nothing_half_written(runs, image_folder, tmp_path, capsys):
    file = tmp_path / "a.smalti"
    picture = sorted(image_folder.rglob("*.png"))[0]
    answer(capsys, "compress", runs / "vqvae", picture, "--out", file)
    before = file.read_bytes()
    assert "--force overwrites" in error(capsys, "compress", runs / "vqvae", image_folder, "--out", file)
    assert file.read_bytes() == before
    answer(capsys, "compress", runs / "vqvae", image_folder, "--out", file, "--force")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no image")
    assert "x.png" in error(capsys, "compress", runs / "vqvae", tmp_path / "bad", "--out", tmp_path / "b.smalti")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.smalti", "bad", "cache"]
    answer(capsys, "decompress", file, "--out", tmp_path / "out", "--only", "0,1")
    assert "exists" in error(capsys, "decompress", file, "--out", tmp_path / "out", "--only", "1,2")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_bad_words_are_told(runs, image_folder, tmp_path, capsys):
    picture = sorted(image_folder.rglob("*.png"))[0]
    assert "must end in .smalti" in error(capsys, "compress", runs / "vqvae", picture, "--out", tmp_path / "a.zip")
    wanted = "the coder 'prior' needs a trained prior"
    assert wanted in error(
        capsys, "compress", runs / "vqvae", picture, "--out", tmp_path / "a.smalti", "--coder", "prior"
    )
    file = tmp_path / "a.smalti"
    answer(capsys, "compress", runs / "vqvae", image_folder, "--out", file)
    assert "--only takes numbers from 0 to 39" in error(capsys, "decompress", file, "--out", tmp_path, "--only", "40")
    assert "is one picture" in error(capsys, "decompress", file, "--out", tmp_path / "b.png")
    file.write_bytes(file.read_bytes()[:-1])
    assert "cut off" in error(capsys, "decompress", file, "--out", tmp_path)
    assert "cut off" in error(capsys, "info", file)
    assert "does not exist" in error(capsys, "info", tmp_path / "none.smalti")
