"""Priors through the command line: train, evaluate, sample, info, and what goes wrong."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from smalti import Autoencoder, Generator, SmaltiError
from smalti.apps.cli import main
from smalti.images.folders import find_images
from smalti.priors.code_model import CodeModel
from smalti.training.log import read_metrics

TRAIN = ["--steps", "4", "--batch_size", "4", "--log_every", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """A tiny tokenizer, another one, and two priors of the first."""
    folder = tmp_path_factory.mktemp("priors")
    tiny = [*TRAIN, "--image_size", "16", "--width", "8", "--codebook_size", "16", "--data", str(image_folder)]
    for name, seed in (("vqvae", "0"), ("other", "1")):
        assert main(["train", "vqvae", "--out", str(folder / name), "--seed", seed, *tiny]) == 0
    rows = [
        f"{path.relative_to(image_folder)},a {path.parent.name} no {path.stem}" for path in find_images(image_folder)
    ]
    (image_folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
    own = ["--tokenizer", str(folder / "vqvae"), "--data", str(image_folder), *TRAIN, "--sample_every", "2"]
    narrow = ["--width", "8", "--layers", "1", "--heads", "2"]
    small = {
        "pixelcnn": ["--channels", "8", "--layers", "1"],
        "pixelsnail": ["--channels", "8", "--blocks", "1", "--heads", "2"],
        "transformer": [*narrow, "--label", "class"],
        "text": [*narrow, "--text", "en", "--text_vocabulary", "300", "--text_length", "20"],
        "maskgit": narrow,
    }
    for name, options in small.items():
        recipe = "transformer" if name == "text" else name
        assert main(["train", recipe, "--out", str(folder / name), *own, *options]) == 0
    pixels = ["--tokenizer", "pixels", "--image_size", "8", "--data", str(image_folder), *TRAIN]
    assert (
        main(["train", "pixelcnn", *pixels, "--out", str(folder / "pixels"), "--channels", "8", "--layers", "1"]) == 0
    )
    return folder


def test_a_prior_trains_evaluates_and_says_what_it_is(runs, image_folder, capsys):
    for name in ("pixelcnn", "pixelsnail", "transformer", "text", "maskgit"):
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
        bits = "bits_per_hidden_code" if name == "maskgit" else "bits_per_code"
        assert read_metrics(runs / name / "metrics.jsonl")[-1][bits] > 0
        assert metrics["bits_per_dim"] == pytest.approx(metrics["bits"] / (3 * 16 * 16))
        assert len(list((runs / name / "samples").glob("*.png"))) == 2


def test_codes_are_made_once_and_are_the_tokenizers(runs, image_folder):
    from smalti.data.sources import open_data
    from smalti.training.codes import load_codes

    config = Generator.from_pretrained(str(runs / "transformer")).model.config
    cached = load_codes(config, open_data(str(image_folder), "train"), runs / "transformer")
    fresh = load_codes(config, open_data(str(image_folder), "train"), None)
    assert torch.equal(cached.codes, fresh.codes) and torch.equal(cached.classes, fresh.classes)
    assert torch.equal(cached.sample(torch.tensor([3, 1]))[0], cached.fixed()[0][[3, 1]])
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
    known, kept = generator.kept(image, mask)
    codes = generator.sample(num=3, known=known, mask=kept)
    assert (codes[:, :2] == tokenizer.encode(image)[0][:2]).all()


def test_completion_from_the_command_line(runs, image_folder, tmp_path, capsys):
    """The kept part of the codes is that of the image; the picture begins with the image and with what is kept."""
    from smalti.apps.encodedfile import read_encoded
    from smalti.images.pixels import to_float
    from smalti.images.reading import fit, read_image

    image = find_images(image_folder)[0]
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:, 8:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    tokenizer = Autoencoder.from_pretrained(runs / "vqvae")
    codes = tokenizer.encode(to_float(torch.from_numpy(fit(read_image(image, 3), 16))[None]))[0]
    for name, kept in (("left-half", np.s_[:, :2]), (str(tmp_path / "mask.png"), np.s_[:, 2:])):
        for prior in ("pixelcnn", "maskgit"):
            out = tmp_path / "done.png"
            argv = ["sample", str(runs / prior), "--num", "3", "--known", str(image), "--mask", name]
            assert main([*argv, "--out", str(out), "--force"]) == 0
            for own in read_encoded(out.with_suffix(".npz"), tokenizer.source_hash).values:
                assert torch.equal(own[kept], codes[kept])
            with Image.open(out) as picture:
                assert picture.width == 5 * (32 + 2) - 2


def test_text_is_drawn_and_kept_with_the_prior(runs, tmp_path, image_folder):
    generator = Generator.from_pretrained(str(runs / "text"))
    assert (runs / "text" / "text.json").exists()
    pictures = generator("a disc no 1", num=2, guidance=2.0)
    assert len(pictures) == 2 and pictures[0].size == (16, 16)
    several = generator.sample(["a disc", "a square"], num=2, seed=3)
    assert several.shape == (4, 4, 4)
    assert len(generator(num=3)) == 3  # without a text, whatever there is
    out = tmp_path / "disc.png"
    assert (
        main(["sample", str(runs / "text"), "--text", "a disc", "--num", "2", "--guidance", "3", "--out", str(out)])
        == 0
    )
    generator.model.save_pretrained(tmp_path / "copy")
    again = Generator.from_pretrained(str(tmp_path / "copy")).sample("a disc", num=2)
    assert torch.equal(again, generator.sample("a disc", num=2))


def test_a_prior_that_always_saw_its_condition_says_so(runs):
    generator = Generator.from_pretrained(str(runs / "text"))
    config = replace(generator.model.config, condition_dropout=0.0)
    strict = Generator(CodeModel(config, generator.model.text), generator.tokenizer)
    assert strict.sample("a disc").shape == (1, 4, 4)
    with pytest.raises(SmaltiError, match="needs a prompt; give one"):
        strict.sample()
    with pytest.raises(SmaltiError, match=r"guidance 2.0 needs a prior trained with condition_dropout"):
        strict.sample("a disc", guidance=2.0)


def test_a_prior_on_pixels_draws_and_measures_them(runs, image_folder, tmp_path, capsys):
    from smalti.generate.tokenizer import PixelTokenizer
    from smalti.priors.config import PixelLevels

    images = torch.randint(0, 256, (2, 3, 8, 8)) / 255
    exact = PixelTokenizer(PixelLevels(image_size=8, channels=3, levels=256))
    assert exact.encode(images).shape == (2, 8, 24)
    torch.testing.assert_close(exact.decode(exact.encode(images)), images)
    assert exact.encode(images)[0, 0, :3].tolist() == (images[0, :, 0, 0] * 255).round().long().tolist()
    coarse = PixelTokenizer(PixelLevels(image_size=8, channels=3, levels=4))
    assert (coarse.decode(coarse.encode(images)) - images).abs().max() < 0.26
    capsys.readouterr()
    assert main(["evaluate", str(runs / "pixels"), "--data", str(image_folder), "--split", "all", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["bits_per_dim"] == pytest.approx(metrics["bits_per_code"])  # a code is a value of a pixel
    assert metrics["uniform_bits_per_code"] == 8.0
    assert main(["sample", str(runs / "pixels"), "--num", "2", "--out", str(tmp_path / "p.png")]) == 0
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (2 * (16 + 2) - 2, 16)


def test_binary_pixels_are_drawn_anew_in_training_and_fixed_in_evaluation(tmp_path):
    from smalti.training.codes import CodeSet

    grey = torch.full((200, 4, 4), 64, dtype=torch.uint8)
    codes = CodeSet(codes=grey, binary=True)
    first, second = codes.sample(torch.arange(200))[0], codes.sample(torch.arange(200))[0]
    assert not torch.equal(first, second) and set(first.unique().tolist()) == {0, 1}
    assert first.double().mean().item() == pytest.approx(64 / 255, abs=0.03)
    assert torch.equal(codes.fixed()[0], codes.fixed()[0])


def test_captions_of_several_languages_are_mixed(monkeypatch):
    from smalti.data.conditions import captions_of
    from smalti.data.sources import open_data
    from smalti.priors.text import TextTokenizer
    from smalti.training.codes import CodeSet

    source = open_data("emoji", "test")
    rows = captions_of(source, ["en", "de"])
    assert all(len(row) == 2 for row in rows)
    with pytest.raises(SmaltiError, match="no caption in xx; it has: .*en"):
        captions_of(source, ["xx"])
    text = TextTokenizer.train([caption for row in rows for caption in row], 400, 64)
    tokens = text([caption for row in rows for caption in row], cut=True).view(len(rows), 2, -1)
    codes = CodeSet(codes=torch.zeros(len(rows), 2, 2), tokens=tokens, num_captions=torch.full((len(rows),), 2))
    drawn = codes.sample(torch.zeros(50, dtype=torch.int64))[1]
    assert {text.decode(row) for row in drawn} == {caption.lower() for caption in rows[0]}


def test_text_of_any_script_survives_its_tokens():
    from smalti.priors.text import TextTokenizer

    text = TextTokenizer.train(["red heart", "blue heart"], 300, 40)
    for caption in ("red heart", "näive café", "心 赤い", "\N{HEAVY BLACK HEART}"):
        assert text.decode(text([caption])[0]) == caption
    assert torch.equal(text(["RED heart "]), text(["red heart"]))
    again = TextTokenizer.train(["red heart", "blue heart"], 300, 40)
    assert again.bpe.to_str() == text.bpe.to_str()


def test_resume_of_a_prior_is_exact(runs, image_folder, tmp_path, monkeypatch):
    import os
    import signal

    from smalti.files import read_tensors
    from smalti.recipes import transformer
    from smalti.training.loop import Interrupted, train
    from smalti.training.prior_task import PriorTask

    experiment = transformer(tokenizer=str(runs / "vqvae"), data=str(image_folder), width=8, layers=1, heads=2)
    settings = {"steps": 5, "batch_size": 4, "log_every": 2, "checkpoint_every": 2, "sample_every": 0}
    experiment = experiment.with_settings(**settings)
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


TRAIN_ON = "--tokenizer {runs}/vqvae --out {runs}/x"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample {runs}/transformer --label dics", "unknown class 'dics'; did you mean 'disc'"),
        ("sample {runs}/pixelcnn --label disc", "takes no label"),
        ("sample {runs}/pixelcnn --text disc", "takes no text"),
        ("sample {runs}/transformer --text disc", "takes no text; give a label"),
        ("sample {runs}/text --label disc", "takes no label; give a text"),
        ("sample {runs}/text --text ' '", "the text is empty"),
        (f"sample {{runs}}/text --text {'x' * 50}", "51 tokens, at most 20 fit; shorten it"),
        ("sample {runs}/pixelcnn --guidance 2", "guidance 2.0 needs a conditional prior"),
        ("sample {runs}/pixelcnn --rounds 4", "for a masked prior"),
        ("sample {runs}/maskgit --rounds -1", "at least 1, not -1"),
        ("sample {runs}/pixelcnn --mask left-half", "both --known IMAGE and --mask"),
        ("sample {runs}/pixelcnn --known {image} --mask lefthalf", "did you mean 'left-half'?"),
        ("sample {runs}/pixelcnn --known {image} --mask {image}", "this prior makes 16x16"),
        ("sample {runs}/pixelcnn --known {runs}/none.png --mask box", "no such file"),
        ("sample {runs}/pixelcnn --tokenizer {runs}/other", "models the codes of the tokenizer"),
        ("sample {runs}/pixelcnn --temperature -1", "must not be negative"),
        ("sample {runs}/pixelcnn --top_p 0", "(0, 1], not 0.0"),
        ("sample {runs}/pixelcnn --num 0", "at least 1, not 0"),
        ("sample {runs}/pixelcnn --like {image}", "has no effect on a prior"),
        ("sample {runs}/vqvae --label disc", "label disc has no effect on an autoencoder; leave it out"),
        ("sample {runs}/vqvae --guidance 2", "guidance 2.0 has no effect on an autoencoder; leave it out"),
        ("train pixelcnn --tokenizer {runs}/none --out {runs}/x", "no trained model in this folder"),
        (f"train pixelcnn {TRAIN_ON} --label kind", "no labels of the kind 'kind'"),
        (f"train pixelcnn {TRAIN_ON} --levels 256", "levels 256 has no effect without tokenizer pixels; leave it out"),
        (f"train pixelcnn {TRAIN_ON} --label class --condition_dropout 1", "[0, 1), not 1.0"),
        ("train pixelcnn --tokenizer pixels --levels 1 --out {runs}/x", "from 2 to 256, not 1"),
        (f"train transformer {TRAIN_ON} --text xx", "no caption in xx"),
        (f"train transformer {TRAIN_ON} --text en --label class", "--label or --text, not both"),
        (f"train maskgit {TRAIN_ON} --text en --text_vocabulary 9", "256 bytes at least, not 9"),
    ],
)
def test_bad_input_is_one_line(runs, command, message, capsys, image_folder):
    capsys.readouterr()
    argv = shlex.split(command.format(runs=runs, image=find_images(image_folder)[0]))
    if argv[0] == "train":
        argv += ["--data", str(image_folder)]
    assert main(argv) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("smalti:")]
    assert len(lines) == 1 and message in lines[0]


def test_a_generator_refuses_another_tokenizer(runs):
    with pytest.raises(SmaltiError, match="give its own"):
        Generator.from_pretrained(str(runs / "pixelcnn"), tokenizer=str(runs / "other"))
