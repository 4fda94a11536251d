"""A tokenizer of another project through all that a model of ours goes through."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.apps.cli import main
from smalti.files import read_json, read_tensors, write_tensors
from smalti.interop.layouts import TAMING, foreign
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import VectorQuantizer
from smalti.models.networks import VqganNetworks

RUN = ["--steps", "2", "--batch_size", "4", "--validation_images", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A VQGAN by taming's names: four levels, 64 codes."""
    torch.manual_seed(0)
    networks, codes = VqganNetworks(width=32, multipliers=(1, 1, 1, 1), depth=1), 64
    towers = {"encoder": networks.encoder(3, 4), "decoder": networks.decoder(4, 3)}
    state = {f"{tower}.{name}": value for tower, own in towers.items() for name, value in own.state_dict().items()}
    state = {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}
    state["codebook.weight"] = 0.5 * torch.randn(codes, 4)
    folder = tmp_path_factory.mktemp("converted")
    weights = {theirs: state[ours] for ours, theirs in foreign(state, TAMING).items()}
    write_tensors(folder / "last.safetensors", {**weights, "loss.perceptual.weight": torch.zeros(3)})
    (folder / "model.json").write_text(json.dumps({"params": {"n_embed": codes}}))
    return folder


def go(*words: object) -> None:
    assert main([*map(str, words)]) == 0


@pytest.fixture(scope="module")
def run(model):
    out = model / "run"
    command = ["--config", model / "model.json", "--image_size", 16, "--no_check"]
    go("convert", model / "last.safetensors", "--out", out, *command)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(24):
        Image.fromarray(draw_image(index, (16, 16))).save(folder / f"{index:02d}.png")
    return folder


def test_the_screen_says_what_was_found(model, run, capsys, tmp_path):
    capsys.readouterr()
    go("convert", model / "last.safetensors", "--out", tmp_path / "again", "--config", model / "model.json")
    text = capsys.readouterr().out
    for part in ("f8, K = 64, D = 4, compared by distance", "loss. 1", "codes -> picture -> codes"):
        assert part in text


def test_it_encodes_decodes_and_is_measured(run, pictures, tmp_path, capsys):
    for suffix in ("npz", "npy", "jsonl"):
        go("encode", run, pictures, "--out", tmp_path / f"codes.{suffix}")
        go("decode", run, tmp_path / f"codes.{suffix}", "--out", tmp_path / suffix)
    for path in (tmp_path / "npz").iterdir():
        assert all(path.read_bytes() == (tmp_path / other / path.name).read_bytes() for other in ("npy", "jsonl"))
    go("reconstruct", run, pictures / "00.png", "--out", tmp_path / "both")
    go("evaluate", run, "--data", pictures, "--split", "all", "--batch_size", 8)
    assert read_json(run / "evaluation.json")["metrics"]["psnr_db"] > 0
    go("report", run, "--out", tmp_path / "report.html")
    assert len(np.load(tmp_path / "codes.npy")) == 24


def test_it_compresses(run, pictures, tmp_path):
    go("compress", run, pictures / "01.png", "--out", tmp_path / "a.smalti")
    go("decompress", tmp_path / "a.smalti", "--model", run, "--out", tmp_path / "back.png")
    with Image.open(tmp_path / "back.png") as picture:
        model = Autoencoder.from_pretrained(run)
        made = (model.reconstruct(pictures / "01.png")[0] * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(np.array(picture).astype(int) - made).max() <= 1


def test_a_prior_is_trained_on_its_codes(run, pictures, tmp_path):
    small = ["--width", 8, "--layers", 1, "--heads", 2]
    go("train", "transformer", "--tokenizer", run, "--data", pictures, "--out", tmp_path / "prior", *RUN, *small)
    go("sample", tmp_path / "prior", "--num", 2, "--out", tmp_path / "samples.png")
    assert (tmp_path / "samples.npz").is_file()


def test_it_is_trained_further_and_goes_out_again(run, pictures, tmp_path):
    mine = tmp_path / "mine"
    go("train", "finetune", "--from", run, "--data", pictures, "--freeze", "encoder", "--out", mine, *RUN)
    before, after = read_tensors(run / "model.safetensors")[0], read_tensors(mine / "model.safetensors")[0]
    changed = {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"decoder"}
    assert isinstance(Autoencoder.from_pretrained(mine).bottleneck, VectorQuantizer)
    go("export", mine, "--format", "diffusers", "--out", tmp_path / "out")
    go("convert", tmp_path / "out", "--out", tmp_path / "back", "--no_check")
    image = torch.rand(1, 3, 32, 32)
    models = [Autoencoder.from_pretrained(folder) for folder in (mine, tmp_path / "back")]
    assert torch.equal(*(each.encode(image) for each in models))
    assert torch.allclose(*(each.reconstruct(image) for each in models), atol=1e-5)
