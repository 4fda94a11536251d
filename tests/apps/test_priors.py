"""Priors through the command line: train, evaluate, sample, info, and what goes wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from smalti import Autoencoder, Generator, SmaltiError
from smalti.apps.cli import main
from smalti.train.log import read_metrics

TRAIN = ["--steps", "4", "--batch_size", "4", "--log_every", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """A tiny tokenizer, another one, and two priors of the first."""
    folder = tmp_path_factory.mktemp("priors")
    tiny = [*TRAIN, "--image_size", "16", "--width", "8", "--codebook_size", "16", "--data", str(image_folder)]
    for name, seed in (("vqvae", "0"), ("other", "1")):
        assert main(["train", "vqvae", "--out", str(folder / name), "--seed", seed, *tiny]) == 0
    own = ["--tokenizer", str(folder / "vqvae"), "--data", str(image_folder), *TRAIN, "--sample_every", "2"]
    small = {
        "pixelcnn": ["--channels", "8", "--layers", "1"],
        "transformer": ["--width", "8", "--layers", "1", "--heads", "2"],
    }
    for name, options in small.items():
        label = ["--label", "class"] if name == "transformer" else []
        assert main(["train", name, "--out", str(folder / name), *own, *options, *label]) == 0
    return folder


def test_a_prior_trains_evaluates_and_says_what_it_is(runs, image_folder, capsys):
    for name in ("pixelcnn", "transformer"):
        capsys.readouterr()
        assert main(["evaluate", str(runs / name), "--data", str(image_folder), "--split", "all", "--json"]) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        assert metrics["uniform_bits_per_code"] == 4.0
        assert metrics["bits"] == pytest.approx(16 * metrics["bits_per_code"])
        assert metrics["share_of_histogram"] == pytest.approx(
            metrics["bits_per_code"] / metrics["histogram_bits_per_code"]
        )
        assert main(["info", str(runs / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["grid"] == [4, 4]
        assert read_metrics(runs / name / "metrics.jsonl")[-1]["bits_per_code"] > 0
        assert len(list((runs / name / "samples").glob("*.png"))) == 2


def test_codes_are_made_once_and_are_the_tokenizers(runs, image_folder):
    from smalti.train.codes import load_codes

    config = Generator.from_pretrained(str(runs / "transformer")).model.config
    cached = load_codes(config, str(image_folder), "train", runs / "transformer")
    fresh = load_codes(config, str(image_folder), "train", None)
    assert torch.equal(cached.codes, fresh.codes) and torch.equal(cached.classes, fresh.classes)
    assert (runs / "transformer" / "codes-train.safetensors").exists()


def test_sample_writes_a_grid_and_codes_that_decode_to_it(runs, tmp_path, capsys):
    out = tmp_path / "hearts.png"
    assert main(["sample", str(runs / "transformer"), "--num", "3", "--label", "disc", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (3 * (32 + 2) - 2, 32)
    assert main(["decode", str(runs / "vqvae"), str(tmp_path / "hearts.npz"), "--out", str(tmp_path / "d")]) == 0
    assert len(list((tmp_path / "d").glob("*.png"))) == 3
    assert (
        main(["sample", str(runs / "pixelcnn"), "--num", "2", "--out", str(tmp_path / "p.png"), "--top_p", "0.9"]) == 0
    )
    assert main(["sample", str(runs / "transformer"), "--num", "4", "--out", str(tmp_path / "all.png")]) == 0


def test_the_same_seed_draws_the_same_images(runs):
    generator = Generator.from_pretrained(str(runs / "transformer"))
    first, second, other = (generator("disc", num=2, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_completion_keeps_the_known_codes(runs, image_folder):
    generator = Generator.from_pretrained(str(runs / "pixelcnn"))
    tokenizer = Autoencoder.from_pretrained(runs / "vqvae")
    image = torch.rand(3, 16, 16)
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:8] = True
    codes = generator.draw(num=3, known=image, mask=mask)
    assert (codes[:, :2] == tokenizer.encode(image)[0][:2]).all()


def test_resume_of_a_prior_is_exact(runs, image_folder, tmp_path, monkeypatch):
    import os
    import signal

    from smalti.files import read_tensors
    from smalti.recipes import transformer
    from smalti.train.loop import Interrupted, train
    from smalti.train.prior_task import PriorTask

    experiment = transformer(
        tokenizer=str(runs / "vqvae"), data=str(image_folder), width=8, layers=1, heads=2, steps=5, batch_size=4,
        log_every=2, checkpoint_every=2, sample_every=0,
    )  # fmt: skip
    train(experiment, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(
            PriorTask, "before_step", lambda self, step: os.kill(os.getpid(), signal.SIGINT) or {} if step == 2 else {}
        )
        with pytest.raises(Interrupted):
            train(experiment, tmp_path / "parts", progress=False)
    train(experiment, tmp_path / "parts", progress=False)
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "codes-train.safetensors").write_bytes(
        (tmp_path / "whole" / "codes-train.safetensors").read_bytes()
    )
    train(
        experiment, tmp_path / "cached", progress=False
    )  # killed before its first checkpoint, say: the codes are there
    assert (tmp_path / "cached" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    whole, parts = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sample", "{runs}/transformer", "--label", "dics"], "unknown class 'dics'; did you mean 'disc'"),
        (["sample", "{runs}/pixelcnn", "--label", "disc"], "takes no label"),
        (["sample", "{runs}/pixelcnn", "--tokenizer", "{runs}/other"], "models the codes of the tokenizer"),
        (["sample", "{runs}/pixelcnn", "--temperature", "-1"], "must not be negative"),
        (["sample", "{runs}/pixelcnn", "--top_p", "0"], "(0, 1], not 0.0"),
        (["sample", "{runs}/pixelcnn", "--num", "0"], "at least 1, not 0"),
        (["sample", "{runs}/vqvae"], "does not describe a smalti prior"),
        (["train", "pixelcnn", "--tokenizer", "{runs}/none", "--out", "{runs}/x"], "no trained model in this folder"),
        (
            ["train", "pixelcnn", "--tokenizer", "{runs}/vqvae", "--label", "kind", "--out", "{runs}/x"],
            "no labels of the kind 'kind'",
        ),
    ],
)
def test_bad_input_is_one_line(runs, argv, message, capsys, image_folder):
    capsys.readouterr()
    argv = [word.format(runs=runs) for word in argv]
    if argv[0] == "train":
        argv += ["--data", str(image_folder)]
    assert main(argv) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("smalti:")]
    assert len(lines) == 1 and message in lines[0]


def test_a_generator_refuses_another_tokenizer(runs):
    with pytest.raises(SmaltiError, match="give its own"):
        Generator.from_pretrained(str(runs / "pixelcnn"), tokenizer=str(runs / "other"))
