"""The models of the package: their names for every verb and class, what they give, their size and their cards."""

import inspect
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti import Autoencoder, Generator, SmaltiError
from smalti.apps import cli
from smalti.apps.runs import open_models
from smalti.bundled import HOME, all_of, bundled, bundled_with, place_of
from smalti.codec.model_index import find_model
from smalti.data.batches import some_images
from smalti.data.sources import open_data
from smalti.files import CARD, CONFIG, WEIGHTS, file_hash, read_json
from smalti.images.fidelity import mse, psnr_db
from smalti.interop import diffusers
from smalti.pretrained import find_folder
from smalti.priors.code_model import CodeModel
from smalti.reports.tables import metric_texts

ROOT = Path(__file__).parent.parent
TOKENIZER, PRIOR = HOME / "emoji", HOME / "emoji" / "text_to_image"
MOST_BYTES = 6_000_000
TINY = ("--steps", "1", "--batch_size", "2", "--validate_every", "0", "--sample_every", "0", "--out", "prior")
LINES = {  # of every verb that takes a model
    "train": ["pixelcnn", "--tokenizer", "emoji", "--data", "images", "--channels", "8", "--layers", "1", *TINY],
    "evaluate": ["emoji", "--data", "images", "--split", "all", "--distances", "none"],
    "report": ["emoji", "emoji/text_to_image", "--images", "1", "--out", "report"],
    "estimators": None,  # of small models only
    "reconstruct": ["emoji", "images", "--out", "both"],
    "encode": ["emoji", "images", "--out", "codes.npz"],
    "decode": ["emoji", "codes.npz", "--out", "back"],
    "sample": ["emoji", "--text", "red heart", "--num", "1"],
    "interpolate": ["emoji", "emoji:1", "emoji:2"],
    "compress": ["emoji", "images", "--coder", "prior", "--out", "small.smalti"],
    "decompress": ["small.smalti", "--model", "emoji", "--prior", "emoji", "--out", "again"],
    "tokenize": ["emoji", "--data", "images", "--out", "shards", "--workers", "1"],
    "export": ["emoji", "--format", "diffusers", "--out", "folder"],
    "serve": None,  # below
    "info": ["emoji/text_to_image"],
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with two pictures, and no memory of models used before."""
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for index in range(2):
        Image.fromarray(draw_image(index)).save(tmp_path / "images" / f"{index}.png")
    return tmp_path


def of_package():
    return {path: file_hash(path) for path in HOME.rglob("*") if path.is_file()}


def test_every_verb_that_takes_a_model_takes_a_bundled_name(workplace, monkeypatch, capsys):
    taking = {name for name, function in cli.VERBS.items()
              if {"run", "runs", "model"} & {*inspect.signature(function).parameters}}  # fmt: skip
    assert taking | {"train", "info"} == LINES.keys()
    exported, before = [], of_package()
    monkeypatch.setattr(diffusers, "write", lambda model, _: exported.append(model.source_hash) or {})
    for verb, words in LINES.items():
        if words is not None:
            assert cli.main([verb, *words, "--quiet"]) == 0, (verb, capsys.readouterr().err)
    assert exported == [file_hash(TOKENIZER / WEIGHTS)]
    assert of_package() == before  # nothing writes into the package


def test_a_server_gives_all_that_a_name_stands_for():
    pytest.importorskip("fastapi")
    from smalti.apps.serve import opened

    served, folders = opened(["emoji"])
    assert [*served.tokenizers] == ["emoji"] and [*served.priors] == ["text_to_image"]
    assert folders == {"emoji": TOKENIZER}


def test_a_name_gives_the_kind_that_is_asked_for():
    assert bundled() == {"emoji": "autoencoder", "emoji/text_to_image": "prior"}
    assert place_of("emoji") == str(TOKENIZER) and place_of("emoji", "prior") == str(PRIOR)
    assert place_of("emoji/text_to_image") == place_of("emoji/text_to_image", "prior") == str(PRIOR)
    assert all_of("emoji") == ["emoji", "emoji/text_to_image"] and all_of("runs/dvae") == ["runs/dvae"]
    assert place_of("runs/dvae") == "runs/dvae" and place_of("owner/name", "prior") == "owner/name"
    assert Autoencoder.from_pretrained("emoji").source_hash == file_hash(TOKENIZER / WEIGHTS)
    assert CodeModel.from_pretrained("emoji").source_hash == file_hash(PRIOR / WEIGHTS)
    with pytest.raises(SmaltiError, match="does not describe a smalti autoencoder"):
        Autoencoder.from_pretrained("emoji/text_to_image")


def test_a_folder_of_that_name_is_meant_before_it_and_a_near_name_is_told(workplace):
    with pytest.raises(SmaltiError, match=r"emojj: no such folder; did you mean emoji\?"):
        find_folder("emojj")
    (workplace / "emoji").mkdir()
    assert place_of("emoji") == "emoji"
    with pytest.raises(SmaltiError, match="holds no model"):
        Autoencoder.from_pretrained("emoji")


def test_weights_are_found_by_their_hash_wherever_the_package_lies(workplace):
    whole = file_hash(TOKENIZER / WEIGHTS)
    assert bundled_with(whole) == bundled_with(whole[:16]) == str(TOKENIZER)
    assert bundled_with("") is None and bundled_with("0" * 64) is None
    assert find_model(whole[:16], None, workplace / "a.smalti", "model") == str(TOKENIZER)
    shutil.copytree(PRIOR, workplace / "moved" / "prior")  # away from its tokenizer
    assert open_models("moved/prior", None, "cpu")[0].source_hash == whole


def test_samples_are_the_same_each_time_and_follow_the_text():
    generator = Generator.from_pretrained("emoji")
    first, again = (generator.sample("red heart", 4, seed=3, guidance=2.0) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, generator.sample("red heart", 4, seed=4, guidance=2.0))
    red, green = (generator.tokenizer.decode(generator.sample(text, 8, seed=0, guidance=3.0)).mean((0, 2, 3))
                  for text in ("red circle", "green circle"))  # fmt: skip
    assert red[0] - red[1] > green[0] - green[1] + 0.1


def test_reconstructions_are_those_that_the_card_tells():
    model, told = Autoencoder.from_pretrained("emoji"), read_json(TOKENIZER / "evaluation.json")
    source = open_data("emoji", "test")
    images = some_images("emoji", "test", model.config.preprocessing, len(source))
    assert told["fingerprint"] == source.fingerprint and len(images) == told["num_images"]
    measured = psnr_db(mse(model.reconstruct(images), images)).mean().item()
    assert measured == pytest.approx(told["metrics"]["psnr_db"], abs=0.01) and measured > 23


@pytest.mark.parametrize("folder", [TOKENIZER, PRIOR], ids=lambda folder: folder.name)
def test_a_card_tells_what_was_measured_of_these_weights(folder):
    evaluation, card = read_json(folder / "evaluation.json"), (folder / CARD).read_text(encoding="utf-8")
    assert evaluation["model_hash"] == file_hash(folder / WEIGHTS) == read_json(folder / CONFIG)["weights_sha256"]
    assert evaluation["split"] == "test" and evaluation["num_images"] == 335
    for name, text in metric_texts(evaluation).items():
        assert f"| {text} | `{name}` |" in card
    assert "Noto Color Emoji" in card and 'from_pretrained("emoji")' in card


def test_they_are_small_and_in_the_wheel():
    assert sum(path.stat().st_size for path in HOME.rglob(WEIGHTS)) <= MOST_BYTES
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["smalti"]
    packed = {path for pattern in patterns for path in (ROOT / "smalti").glob(pattern) if path.is_file()}
    assert {path for path in HOME.rglob("*") if path.is_file()} <= packed


def test_what_is_at_hand_is_listed_without_torch(workplace):
    shutil.copytree(PRIOR, workplace / "runs" / "one" / "prior")
    (workplace / "runs" / "two").mkdir()
    (workplace / "runs" / "two" / CONFIG).write_text("{")
    (workplace / "runs" / "two" / WEIGHTS).write_bytes(b"")
    code = "import sys; from smalti.apps import cli; cli.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "models", workplace / "runs", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    rows = {row["name"]: row for row in json.loads(done.stdout)["model_rows"]}
    one, two = (str(workplace / "runs" / name) for name in ("one/prior", "two"))
    assert [*rows] == ["emoji", "emoji/text_to_image", one, two]
    own, measured = rows["emoji"], read_json(TOKENIZER / "evaluation.json")["metrics"]
    assert (own["kind"], own["made_by"], own["codes"], own["data"]) == ("autoencoder", "dvae", "512", "emoji")
    assert own["metric"] == "psnr_db" and own["value"] == measured["psnr_db"]
    assert rows[one]["metric"] == "bits_per_code" and rows[two]["remark"].startswith("damaged: ")
    with pytest.raises(SmaltiError, match="nowhere: no such folder"):
        cli.VERBS["models"](["nowhere"])
