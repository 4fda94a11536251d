"""The verbs are functions of the package, the same as in the shell; an option that would do nothing is refused."""

import inspect
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

import smalti
from smalti.apps import cli
from smalti.recipes import pixelcnn, transformer, vqvae

RUN = {"steps": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_folder):
    """A tokenizer, a prior of its codes and one of pixels, trained from Python."""
    folder, data = tmp_path_factory.mktemp("verbs"), str(image_folder)
    smalti.train(vqvae(data=data, image_size=16, width=8, codebook_size=16), folder / "vqvae", **RUN)
    own = {"tokenizer": str(folder / "vqvae"), "data": data}
    smalti.train(pixelcnn(channels=8, layers=1, **own), folder / "pixelcnn", **RUN)
    smalti.train(transformer(width=8, layers=1, heads=2, label="class", **own), folder / "labels", **RUN)
    pixels = pixelcnn(tokenizer="pixels", image_size=8, channels=8, layers=1, data=data)
    smalti.train(pixels, folder / "pixels", **RUN)
    return folder


def test_every_verb_is_a_public_function_and_the_same_one():
    for name, function in cli.VERBS.items():
        assert vars(sys.modules[f"smalti.apps.{name}"])[name] is function
        room = find_spec(f"smalti.{name}") is not None  # smalti.models is no verb
        assert room or (function is getattr(smalti, name) and name in smalti.__all__ and name in dir(smalti))


def test_every_parameter_of_a_verb_is_explained():
    from smalti.recipes.flat import help_texts

    for name, function in cli.VERBS.items():
        names = {parameter.name for parameter in inspect.signature(function).parameters.values()}
        explained = {key.lstrip("*") for key, text in help_texts(function).items() if text}
        assert names == explained, name


def test_importing_the_package_and_naming_its_verbs_is_light():
    code = "import sys, smalti; smalti.train, smalti.compare, smalti.RECIPES; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_verbs_from_python(runs, image_folder, tmp_path):
    run, images = str(runs / "vqvae"), [str(path) for path in sorted(image_folder.rglob("*.png"))[:2]]
    assert smalti.evaluate(run, str(image_folder), split="all")["num_images"] == 40
    assert len(smalti.reconstruct(run, images, out=str(tmp_path / "both"))["written"]) == 2
    codes = smalti.encode(run, images, out=str(tmp_path / "codes.npz"))
    assert codes["num_codes"] == 2 * 8 * 8
    assert len(smalti.decode(run, codes["written"], out=str(tmp_path / "back"))["written"]) == 2
    packed = smalti.compress(run, images, out=str(tmp_path / "two.smalti"))
    assert packed["num_images"] == 2
    assert len(smalti.decompress(packed["written"], model=run, out=str(tmp_path / "again"))["written"]) == 2
    drawn = smalti.sample(str(runs / "pixelcnn"), num=2, out=str(tmp_path / "drawn.png"))
    assert all((tmp_path / name).exists() for name in ("drawn.png", "drawn.npz")) and len(drawn["written"]) == 2
    assert smalti.info(run)["trained"] == "2 of 2 steps"


def test_compare_and_estimators_from_python(image_folder, tmp_path):
    small = {"image_size": 16, "width": 8, "codebook_size": 16}
    systems = "ae,vqvae"
    result = smalti.compare(
        data=str(image_folder), out=str(tmp_path / "c"), systems=systems, seed=3, prior_steps=1, **small, **RUN
    )
    assert {"ae_psnr_db", "vqvae_psnr_db"} < result.keys()
    kept = smalti.info(str(tmp_path / "c" / "runs" / "vqvae-3"))
    assert kept["bottleneck"]["codebook_size"] == 16 and kept["trained"] == "2 of 2 steps"
    lab = {"num_images": 2, "draws": 4, "device": "cpu", "precision": "bf16"}
    found = smalti.estimators(out=str(tmp_path / "lab"), data=str(image_folder), **lab, **RUN)
    assert (tmp_path / "lab" / "estimators.html").exists() and "least_bias" in found


def test_settings_of_a_run_override_the_recipes_own_only_where_they_are_given(image_folder):
    experiment = pixelcnn(tokenizer="pixels", data=str(image_folder))
    changed = experiment.with_settings(seed=4, steps=None)
    assert (changed.run.steps, changed.run.batch_size, changed.run.seed) == (800, 32, 4)
    assert changed.with_settings(seed=0) == experiment


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("evaluate", {"run": "pixelcnn", "importance_samples": 7}, "importance_samples 7 has no effect on a prior"),
        ("evaluate", {"run": "vqvae", "batch_size": 0}, "--batch_size must be at least 1, not 0"),
        ("evaluate", {"run": "vqvae", "samples": -1}, "--samples must be at least 0, not -1"),
        ("evaluate", {"run": "vqvae", "importance_samples": -1}, "--importance_samples must be at least 0, not -1"),
        ("evaluate", {"run": "vqvae", "probe": "class", "probe_images": 0}, "--probe_images must be at least 1, not 0"),
        ("evaluate", {"run": "pixelcnn", "noise": "gaussian"}, "noise gaussian has no effect on a prior"),
        ("evaluate", {"run": "pixelcnn", "noise_patch": 4}, "noise_patch 4 has no effect on a prior"),
        ("evaluate", {"run": "vqvae", "noise_patch": 4}, "noise_patch 4 has no effect without noise masking"),
        ("reconstruct", {"run": "vqvae", "images": [], "noise_level": 0.1}, "noise_level 0.1 has no effect without"),
        ("reconstruct", {"run": "vqvae", "images": [], "seed": 0}, "seed 0 has no effect without noise"),
        ("sample", {"run": "pixels", "tokenizer": "vqvae"}, "has no effect on a prior of pixels; leave it out"),
        ("sample", {"run": "pixelcnn", "rounds": 4}, "for a masked prior"),
        ("sample", {"run": "pixelcnn", "guidance": 2.0}, "guidance 2.0 needs a conditional prior"),
        ("sample", {"run": "pixelcnn", "label": "disc"}, "takes no label"),
        ("sample", {"run": "pixelcnn", "temperature": 0.0, "top_k": 3}, "no effect at temperature 0"),
        ("sample", {"run": "pixelcnn", "temperature": 0.0, "top_p": 0.5}, "no effect at temperature 0"),
        ("sample", {"run": "pixelcnn", "mask": "box"}, "completion needs both"),
        ("compress", {"run": "vqvae", "images": [], "depth": 2}, "depth must lie in 1 to 1"),
        ("compress", {"run": "vqvae", "images": [], "images_per_chunk": 0}, "must lie in 1 to 4096, not 0"),
        ("compress", {"run": "vqvae", "images": [], "coder": "prior"}, "needs a trained prior"),
        ("decompress", {"file": "a.smalti", "prior": "/nonexistent"}, "prior /nonexistent has no effect on"),
        ("decompress", {"file": "a.smalti", "model": "other"}, "this file needs the model"),
        ("compare", {"data": "emoji", "systems": "ae,vae", "codebook_size": 512}, "codebook_size 512 has no effect on"),
        ("compare", {"data": "emoji", "stpes": 3}, "a run has no setting 'stpes'; did you mean 'steps'"),
        ("estimators", {"run": "vqvae", "steps": 3}, "steps 3 has no effect on a run that is trained already"),
        ("estimators", {"run": "vqvae", "device": "cpu"}, "device cpu has no effect on a run that is trained already"),
    ],
)
def test_an_option_without_effect_is_refused(runs, image_folder, tmp_path, verb, options, message):
    """Runs and files are named as they lie in the folder of the runs."""
    image = str(next(image_folder.rglob("*.png")))
    if not (runs / "a.smalti").exists():
        smalti.compress(str(runs / "vqvae"), [image], out=str(runs / "a.smalti"))
        other = vqvae(data=str(image_folder), image_size=16, width=8, codebook_size=16)
        smalti.train(other, runs / "other", seed=1, **RUN)
    known = {path.name for path in runs.iterdir()}
    given = {key: str(runs / value) if str(value) in known else value for key, value in options.items()}
    if verb in ("reconstruct", "sample", "compress", "decompress", "compare", "estimators"):
        given["out"] = str(tmp_path / ("out.png" if verb == "sample" else "out.smalti"))
    if "images" in given:
        given["images"] = [image]
    with pytest.raises(smalti.SmaltiError, match=message):
        getattr(smalti, verb)(**given)


def test_guidance_without_a_prompt_is_refused(runs):
    generator = smalti.Generator.from_pretrained(str(runs / "labels"))
    with pytest.raises(smalti.SmaltiError, match=r"guidance 2.0 has no effect without a prompt"):
        generator.sample(guidance=2.0)
    assert not torch.equal(generator.sample("disc", 8), generator.sample("disc", 8, seed=1))


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "vqvae", "--data", "", "--out", "x"],
        ["train", "vqvae", "--data", "ph", "--out="],
        ["train", "vqvae", "--data", "ph", "--out", "x", "--from", ""],
        ["info", ""],
        ["encode", "run", ""],
    ],
)
def test_an_empty_word_is_not_the_folder_one_is_in(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 1
    assert "is empty; give a name, or . for the folder you are in" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
