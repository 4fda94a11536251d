"""Where a run's state is from: its own checkpoints, its own folder, and the captions as they are now."""

import os
import shutil

import pytest
from PIL import Image

from conftest import draw_image
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.training.lock import LOCK, locked
from smalti.training.loop import train
from smalti.training.state import checkpoints
from training.test_loop import same, small, weights

WHOLE = {"checkpoint_every": 2, "sample_every": 0}


def go(run, folder, kind="vqvae", **options):
    return train(small(kind, folder, **{**WHOLE, **options}), run, progress=False)


def test_a_checkpoint_of_another_run_is_refused(image_folder, tmp_path):
    """One whose tensors fit would otherwise be gone on with, silently."""
    for name, options in (("seed", {"seed": 5}), ("rate", {"learning_rate": 1e-4}), ("kind", {"kind": "dvae"})):
        other = go(tmp_path / name, image_folder, steps=4, **options)
        run = go(tmp_path / f"run of {name}", image_folder, steps=4)
        shutil.copy(other / "checkpoints" / "step-000000004.safetensors", run / "checkpoints")
        with pytest.raises(SmaltiError, match="step-000000004.safetensors is of another run: .*; remove it") as caught:
            go(run, image_folder, steps=4)
        assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_folder_named_like_a_checkpoint_is_none(image_folder, tmp_path):
    whole = go(tmp_path / "whole", image_folder, steps=4)
    run = go(tmp_path / "run", image_folder, steps=2)
    (run / "checkpoints" / "step-000000009.safetensors").mkdir()
    assert list(checkpoints(run / "checkpoints")) == [2]
    go(run, image_folder, steps=4)
    assert [*checkpoints(run / "checkpoints")] == [*checkpoints(whole / "checkpoints")]


def test_a_run_does_not_start_from_its_own_folder(image_folder, tmp_path):
    """Its first save would replace what it started from, and a second call find another model."""
    run = go(tmp_path, image_folder, steps=2)
    shutil.rmtree(run / "checkpoints")
    (run / "experiment.json").unlink()
    before = weights(run)
    with pytest.raises(SmaltiError, match="is --out itself, .*; choose another --out"):
        train(small("vqvae", image_folder, **WHOLE, steps=2), run, start_from=str(run), progress=False)
    assert same(before, weights(run))


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_new_run_overwrites_nothing(name, image_folder, tmp_path):
    """As with --out . in somebody's own folder."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(SmaltiError, match=f"holds a {name} that is of no run; choose another --out"):
        go(tmp_path, image_folder, steps=1)
    assert (tmp_path / name).read_text() == "mine"


def test_an_experiment_that_is_no_object_is_damaged(image_folder, tmp_path):
    run = go(tmp_path, image_folder, steps=2)
    good = (run / "experiment.json").read_bytes()
    (run / "experiment.json").write_text("[1, 2]")
    with pytest.warns(UserWarning, match="experiment.json is damaged: it holds no object.*; it is written anew"):
        go(run, image_folder, steps=2)
    assert (run / "experiment.json").read_bytes() == good


@pytest.mark.parametrize("name", ["checkpoints", "samples"])
def test_what_is_in_the_way_is_named(name, image_folder, tmp_path):
    (tmp_path / name).write_text("")
    with pytest.raises(SmaltiError, match=f"cannot write to .*{name}: File exists; choose another --out"):
        go(tmp_path, image_folder, steps=1)


def test_what_cannot_be_a_lock_is_named(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(SmaltiError, match=r"cannot write .*\.lock: Is a directory; remove it"), locked(tmp_path):
        pass


def test_captions_that_were_changed_are_read_again(tmp_path):
    """In the same process too, where an older reading must not be taken for them."""
    Image.fromarray(draw_image(0, (8, 8))).save(tmp_path / "a.png")
    for text in ("one", "two"):
        (tmp_path / "a.txt").write_text(text)
        assert open_data(tmp_path).captions[0] == {"en": text}


def test_a_pipe_is_no_log(image_folder, tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.warns(UserWarning, match="metrics.jsonl: no regular file; it is now metrics.jsonl.damaged"):
        go(tmp_path, image_folder, steps=2)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
