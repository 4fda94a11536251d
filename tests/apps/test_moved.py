"""Priors and their tokenizers elsewhere, and data that changed: found by content, not by name."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti import Autoencoder, Generator, SmaltiError
from smalti.apps.cli import main
from smalti.apps.runs import kept_evaluation
from smalti.configs import to_dict
from smalti.data.sources import open_data
from smalti.files import read_json, relative_place
from smalti.priors.code_model import CodeModel
from smalti.reports.model_card import public
from smalti.training.codes import load_codes

TRAIN = ["--steps", "2", "--batch_size", "4", "--log_every", "2", "--sample_every", "0"]


def pictures(folder, count=12, first=0):
    for split in ("train", "test"):
        for index in range(first, first + count):
            path = folder / split / ("odd" if index % 2 else "even") / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(index, (16, 16))).save(path)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """PLACE/photos, and a tokenizer and a prior in PLACE/runs."""
    place = tmp_path_factory.mktemp("moved")
    data = ["--data", str(pictures(place / "photos"))]
    tiny = ["--image_size", "16", "--width", "8", "--codebook_size", "16"]
    assert main(["train", "vqvae", "--out", str(place / "runs" / "tok"), *data, *tiny, *TRAIN]) == 0
    own = ["--tokenizer", str(place / "runs" / "tok"), "--channels", "8", "--layers", "1", "--keep", "last"]
    assert main(["train", "pixelcnn", "--out", str(place / "runs" / "prior"), *own, *data, *TRAIN]) == 0
    return place


@pytest.fixture
def moved(place, tmp_path):
    """A copy of it all, elsewhere, while the first is not there."""
    shutil.copytree(place, tmp_path / "there")
    away = place.rename(place.with_name("away"))
    yield tmp_path / "there"
    away.rename(place)


def error(capsys, *argv):
    capsys.readouterr()
    assert main([*map(str, argv)]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("smalti: ")]
    return [line for line in said if not line.startswith("smalti: warning")][-1]


def test_no_file_that_is_shared_says_where_anybody_keeps_things(place):
    for name in ("tok", "prior"):
        run = place / "runs" / name
        assert main(["evaluate", str(run), "--distances", "none"] if name == "tok" else ["evaluate", str(run)]) == 0
        for file in ("config.json", "README.md"):
            text = (run / file).read_text()
            assert str(place) not in text and "/home" not in text and "../photos" not in text, file
    assert read_json(place / "runs" / "prior" / "config.json")["tokenizer"] == "../tok"
    assert read_json(place / "runs" / "prior" / "experiment.json")["model"]["tokenizer"] == "../tok"
    assert "on `" not in (place / "runs" / "tok" / "README.md").read_text()
    assert "of the test split of `photos`" in (place / "runs" / "tok" / "README.md").read_text()


def test_both_can_be_moved_together(moved, tmp_path, capsys):
    prior = str(moved / "runs" / "prior")
    assert Generator.from_pretrained(prior)(num=1)[0].size == (16, 16)
    assert main(["evaluate", prior, "--data", str(moved / "photos")]) == 0
    assert main(["sample", prior, "--num", "2", "--out", str(tmp_path / "s.png")]) == 0
    image = str(moved / "photos" / "train" / "odd" / "1.png")
    assert main(["compress", prior, image, "--out", str(tmp_path / "one.smalti")]) == 0
    own = ["--tokenizer", str(moved / "runs" / "tok"), "--channels", "8", "--layers", "1"]
    assert main(["train", "pixelcnn", "--out", prior, *own, "--data", str(moved / "photos"), *TRAIN]) == 0


def test_what_was_moved_alone_is_found_where_one_says(moved, tmp_path, capsys):
    """Every verb that decodes a prior's codes takes --tokenizer."""
    tok = shutil.move(moved / "runs" / "tok", tmp_path / "elsewhere")
    prior, image = moved / "runs" / "prior", moved / "photos" / "train" / "odd" / "1.png"
    digits = read_json(prior / "config.json")["tokenizer_hash"][:12]
    (prior / "codes-train.safetensors").unlink()
    for verb, *rest in (
        ("sample", prior, "--num", 1, "--out", tmp_path / "s.png"),
        ("evaluate", prior, "--data", moved / "photos"),
        ("compress", prior, image, "--out", tmp_path / "one.smalti"),
    ):
        assert f"the tokenizer {digits} of this prior is not at {moved / 'runs' / 'tok'}" in error(capsys, verb, *rest)
        assert main([verb, *map(str, rest), "--tokenizer", str(tok)]) == 0
    assert main(["info", str(prior)]) == 0
    again = ["--tokenizer", str(tok), "--channels", "8", "--layers", "1", "--data", str(moved / "photos")]
    assert main(["train", "pixelcnn", "--out", str(prior), *again, *TRAIN]) == 0
    assert "has no effect on an autoencoder" in error(capsys, "evaluate", tok, "--tokenizer", tok)
    assert "not of" in error(capsys, "sample", prior, "--tokenizer", other_weights(tok, tmp_path / "other"))


def other_weights(tok, folder):
    model = Autoencoder.from_pretrained(tok)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    model.save_pretrained(folder)
    return folder


def test_a_copy_for_others_has_its_tokenizer_in_it(place, tmp_path, monkeypatch):
    import huggingface_hub

    pushed = tmp_path / "snapshot"

    class Hub:
        def __init__(self, **_):
            pass

        def create_repo(self, *_, **__):
            pass

        def upload_folder(self, *, repo_id, folder_path):
            return shutil.copytree(folder_path, pushed)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model = CodeModel.from_pretrained(place / "runs" / "prior")
    model.push_to_hub("owner/name")
    assert model.config.tokenizer == str((place / "runs" / "tok").resolve())  # as it was
    names = {path.relative_to(pushed).as_posix() for path in pushed.rglob("*") if path.is_file()}
    assert names == {"config.json", "model.safetensors", "README.md", *model.more_files[1:]}
    assert read_json(pushed / "config.json")["tokenizer"] == "./tokenizer"
    assert all(str(place) not in path.read_text() for path in pushed.rglob("*.json"))

    def download(name, *, revision, allow_patterns):
        assert {*allow_patterns} >= names
        return str(pushed)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    away = place.rename(place.with_name("away"))
    assert Generator.from_pretrained("owner/name")(num=1)[0].size == (16, 16)
    away.rename(place)
    model.config = model.config.opened(tmp_path).__class__(**{**vars(model.config), "tokenizer": "/no/where"})
    with pytest.raises(SmaltiError, match="is not at /no/where; say where it is by use_tokenizer"):
        model.push_to_hub("owner/name")


def test_nothing_is_fetched_because_a_prior_says_so(place, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, **_):
        asked.append(name)
        return str(place / "runs" / "tok")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    prior = tmp_path / "prior"
    shutil.copytree(place / "runs" / "prior", prior)
    config = read_json(prior / "config.json")
    (prior / "config.json").write_text(json.dumps(config | {"tokenizer": "stranger/model"}))
    with pytest.raises(SmaltiError, match="is not at stranger/model; say where it is by --tokenizer"):
        Generator.from_pretrained(str(prior))
    assert asked == []
    assert Generator.from_pretrained(str(prior), tokenizer="stranger/model")(num=1)
    assert asked == ["stranger/model"]


@pytest.mark.parametrize("word", ["pixels", "owner/name", "none"])
def test_what_is_no_path_stays(word, tmp_path):
    assert relative_place(word, tmp_path) == word


def test_a_card_says_names_only():
    from smalti.data.config import DataConfig

    config = DataConfig(data="/home/me/photos", validation="../held/out", test="/x/shards/*.parquet")
    assert public(config) == "photos (validation: out, test: shards/*.parquet)"
    assert public(DataConfig(data="emoji")) == "emoji"


def test_codes_belong_to_images_not_to_names(place, tmp_path, monkeypatch):
    """The same relative name in two folders; the same images under two names; an image that was replaced."""
    config = CodeModel.from_pretrained(place / "runs" / "prior").config
    for name, first in (("one", 0), ("two", 50)):
        pictures(tmp_path / name / "photos", count=4, first=first)
    cache = tmp_path / "cache"
    made = {}
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        made[name] = load_codes(config, open_data("photos", "test"), cache).codes
        assert torch.equal(made[name], load_codes(config, open_data("photos", "test"), None).codes)
    assert not torch.equal(made["one"], made["two"])
    written = (cache / "codes-test.safetensors").stat().st_mtime_ns
    load_codes(config, open_data(tmp_path / "two" / "photos", "test"), cache)  # another spelling
    (tmp_path / "two").rename(tmp_path / "moved")
    load_codes(config, open_data(tmp_path / "moved" / "photos", "test"), cache)
    assert (cache / "codes-test.safetensors").stat().st_mtime_ns == written
    Image.fromarray(draw_image(99, (16, 16))).save(tmp_path / "moved" / "photos" / "test" / "odd" / "51.png")
    anew = load_codes(config, open_data(tmp_path / "moved" / "photos", "test"), cache).codes
    assert not torch.equal(anew, made["two"])
    damaged = bytearray((cache / "codes-test.safetensors").read_bytes())
    damaged[-1] ^= 1
    (cache / "codes-test.safetensors").write_bytes(damaged)
    assert torch.equal(load_codes(config, open_data(tmp_path / "moved" / "photos", "test"), cache).codes, anew)


def test_bad_images_are_left_out_with_their_labels(place, tmp_path):
    from dataclasses import replace

    data = pictures(tmp_path / "photos", count=8)
    labelled = replace(
        CodeModel.from_pretrained(place / "runs" / "prior").config, label_kind="class", labels=("even", "odd")
    )
    whole = load_codes(labelled, open_data(data, "train"), None)
    places = [index for index in range(8) if index not in (0, 6)]  # even 0 2 4 6, odd 1 3 5 7
    for name in ("even/0.png", "odd/5.png"):
        (data / "train" / name).write_bytes(b"no image")
    for _ in range(2):
        with pytest.warns(UserWarning, match="skipped 2 bad images"):
            found = load_codes(labelled, open_data(data, "train"), None)
        assert torch.equal(found.codes, whole.codes[places]) and torch.equal(found.classes, whole.classes[places])
    with pytest.warns(UserWarning, match="skipped 2 bad images"):
        load_codes(labelled, open_data(data, "train"), tmp_path)
    again = load_codes(labelled, open_data(data, "train"), tmp_path)
    assert torch.equal(again.codes, found.codes) and torch.equal(again.classes, found.classes)
    assert found.fingerprint == again.fingerprint != whole.fingerprint


def test_other_captions_are_other_data(place, tmp_path, capsys):
    data = pictures(tmp_path / "photos", count=6)

    def captions(word):
        rows = [f"{path.relative_to(data)},{word} {path.stem}" for path in sorted(data.rglob("*.png"))]
        (data / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")

    captions("number")
    own = ["--tokenizer", str(place / "runs" / "tok"), "--width", "8", "--layers", "1", "--heads", "1"]
    command = ["train", "transformer", "--out", tmp_path / "t", *own, "--text", "en", "--text_vocabulary", "260"]
    command = [*map(str, command), "--data", str(data), *TRAIN]
    assert main(command) == 0 == main(command)
    captions("figure")
    assert "the train data have changed: 6, but others" in error(capsys, *command)


def test_an_evaluation_says_what_of(place, tmp_path, capsys):
    """Of which images and which weights; a damaged one, or one of other weights, is none."""
    run = tmp_path / "tok"
    shutil.copytree(place / "runs" / "tok", run)
    assert main(["evaluate", str(run), "--distances", "none", "--data", str(place / "photos")]) == 0
    found = kept_evaluation(run)
    assert found and len(found["fingerprint"]) == len(found["model_hash"]) == 64
    for text in ("", "[]", "{}", json.dumps({**found, "model_hash": "0"}), json.dumps({**found, "metrics": 1})):
        (run / "evaluation.json").write_text(text)
        assert kept_evaluation(run) is None
        assert main(["info", str(run)]) == 0


def test_a_prior_starts_from_a_prior_and_says_what_does_not_hold(place, tmp_path, capsys):
    tok = other_weights(place / "runs" / "tok", tmp_path / "tok")
    command = ["train", "pixelcnn", "--out", tmp_path / "new", "--tokenizer", tok, "--channels", 8, "--layers", 1]
    command = [*map(str, command), "--data", str(place / "photos"), *TRAIN]
    capsys.readouterr()
    assert main([*command, "--from", str(place / "runs" / "prior")]) == 0
    assert "what it knows of them does not hold here" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "new"), "--json"]) == 0
    assert "started_from" in json.loads(capsys.readouterr().out.splitlines()[-1])
    line = error(capsys, *command[:3], tmp_path / "x", *command[4:], "--from", place / "runs" / "tok")
    assert "does not describe a smalti prior" in line


def test_no_number_of_numpy_is_in_a_config(place):
    config = CodeModel.from_pretrained(place / "runs" / "prior").config
    assert json.loads(json.dumps(to_dict(config)))["grid"] == [4, 4] and not isinstance(config.grid[0], np.integer)
