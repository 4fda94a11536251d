"""Runs with validation and test images of their own: trained, resumed, measured, compared."""

import json

import pytest
from PIL import Image

from conftest import draw_image
from smalti import DataConfig, Experiment
from smalti.apps.cli import main
from smalti.data.sources import open_data
from smalti.files import read_json, read_tensors
from smalti.recipes import pixelcnn, vqvae

TRAIN = ["--steps", "4", "--batch_size", "4", "--checkpoint_every", "2", "--log_every", "2"]
SMALL = ["--image_size", "16", "--width", "8", "--codebook_size", "16"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three folders of images of 12, 5 and 7 images; the classes of the last are not all in the first."""
    root, first = tmp_path_factory.mktemp("own"), 0
    for name, classes in (("a", ["cat"] * 6 + ["dog"] * 6), ("b", ["cat"] * 5), ("c", ["cat"] * 5 + ["owl"] * 2)):
        for index, kind in enumerate(classes):
            path = root / name / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(first + index, (16, 16))).save(path)
        first += len(classes)
    return {name: str(root / name) for name in "abc"}


@pytest.fixture(scope="module")
def own(folders):
    return ["--data", folders["a"], "--validation", folders["b"], "--test", folders["c"]]


@pytest.fixture(scope="module")
def run(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "vqvae"
    assert main(["train", "vqvae", *own, "--out", str(folder), *TRAIN, *SMALL]) == 0
    return folder


def answer(capsys, *argv):
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys, *argv):
    capsys.readouterr()
    assert main(list(map(str, argv))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_is_measured_on_its_own_data(run, folders, capsys):
    config = {"data": folders["a"], "validation": folders["b"], "test": folders["c"]}
    words = f"{folders['a']} (validation: {folders['b']}, test: {folders['c']})"
    assert read_json(run / "experiment.json")["data"] == config
    for split, count in (("train", 12), ("validation", 5), ("all", 24), ("test", 7)):
        found = answer(capsys, "evaluate", run, "--split", split)
        assert (found["num_images"], found["data"], found["data_config"]) == (count, words, config)
    assert "7 images of the test split of `a (validation: b, test: c)`" in (run / "README.md").read_text()
    assert answer(capsys, "info", run)["trained_on"] == words
    other = answer(capsys, "evaluate", run, "--data", folders["b"], "--split", "all")
    assert (other["num_images"], other["data"]) == (5, folders["b"])
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    assert f"7 images of the test split of {words}" in capsys.readouterr().out


def test_another_validation_set_is_another_training_and_the_same_goes_on(run, own, folders, tmp_path, capsys):
    command = ["train", "vqvae", *own, "--out", tmp_path / "run", *TRAIN, *SMALL]
    capsys.readouterr()
    other = [*command[:2], *own[:2], "--validation", folders["c"], "--test", folders["b"], *command[8:]]
    assert main([*map(str, other), "--out", str(run)]) == 1
    assert "the validation data have changed: 5 images then, 7 now" in capsys.readouterr().err
    assert main(list(map(str, command))) == 0
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))
    newest.unlink()  # as if it had been interrupted at step 2
    assert main(list(map(str, command))) == 0
    once, twice = (read_tensors(folder / "model.safetensors")[0] for folder in (run, tmp_path / "run"))
    assert once.keys() == twice.keys() and all((once[name] == twice[name]).all() for name in once)


def test_a_prior_knows_the_labels_of_all_parts(run, own, tmp_path, capsys):
    network = ["--width", "8", "--layers", "1", "--heads", "2", "--label", "class"]
    prior = tmp_path / "prior"
    assert main(["train", "transformer", "--tokenizer", str(run), *own, *network, *TRAIN, "--out", str(prior)]) == 0
    assert read_json(prior / "config.json")["labels"] == ["cat", "dog", "owl"]
    for split, count in (("test", 7), ("validation", 5), ("test", 7)):
        assert answer(capsys, "evaluate", prior, "--split", split)["num_images"] == count
    assert read_json(prior / "evaluation.json")["data_config"]["test"] == own[-1]


def test_codes_of_other_parts_are_not_those_of_the_cache(run, folders, tmp_path):
    from smalti.training.codes import load_codes

    model = pixelcnn(tokenizer=str(run), data=folders["a"]).model
    for test, count in (("b", 5), ("c", 7), ("b", 5)):
        data = DataConfig(data=folders["a"], test=folders[test])
        assert len(load_codes(model, open_data(data, "test"), tmp_path)) == count


def test_a_model_that_does_not_say_what_it_was_trained_on_needs_data(run, folders, tmp_path, capsys):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert "no experiment.json" in complaint(capsys, "evaluate", tmp_path)
    assert "give --data" in complaint(capsys, "evaluate", "owner/name")
    assert answer(capsys, "evaluate", tmp_path, "--data", folders["c"], "--split", "all")["num_images"] == 7


def test_systems_are_compared_on_data_of_their_own(own, folders, tmp_path, capsys):
    command = ["compare", *own, "--systems", "ae,vqvae", "--image_size", "16", "--width", "8", "--steps", "2"]
    command += ["--priors", "vqvae:pixelcnn", "--prior_steps", "1"]
    command += ["--codebook_size", "16", "--batch_size", "4", "--out", str(tmp_path)]
    assert main(command) == 0
    assert read_json(tmp_path / "comparison.json")["settings"]["data"].endswith(f"test: {folders['c']})")
    assert read_json(tmp_path / "runs" / "ae-0" / "evaluation.json")["num_images"] == 7


def test_the_lab_takes_the_images_that_its_run_was_trained_on(own, tmp_path):
    options = [
        "--steps",
        "2",
        "--variables",
        "2",
        "--classes",
        "3",
        "--batch_size",
        "4",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", "emoji_categorical", *own, *options]) == 0
    lab = ["--num_images", "2", "--draws", "16", "--out", str(tmp_path / "lab")]
    assert main(["estimators", "--run", str(tmp_path / "run"), *lab]) == 0
    assert "(validation: " in read_json(tmp_path / "lab" / "estimators.json")["data"]


def test_an_experiment_takes_a_name_alone_or_a_record(folders):
    record = DataConfig(data=folders["a"], test=folders["c"])
    made = vqvae(data=folders["a"], test=folders["c"])
    assert made.data == record == Experiment(data=record, model=made.model).data
    assert Experiment(data=folders["a"], model=made.model).data == DataConfig(data=folders["a"])
