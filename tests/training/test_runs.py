"""A run's folder: who may train into it, what may change between calls, and what is damaged in it."""

import json
import os
import subprocess
import sys
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_image
from smalti.configs import decisive, to_dict
from smalti.environment import environment
from smalti.errors import SmaltiError
from smalti.files import BEST, PARTIAL, atomic_path, read_checked, read_json, write_checked
from smalti.models.autoencoder import Autoencoder
from smalti.training.lock import LOCK, locked
from smalti.training.log import read_metrics
from smalti.training.loop import train
from smalti.training.settings import RunSettings
from smalti.training.state import checkpoints
from training.test_loop import latest_checkpoint, same, small, weights, without_speed

WHOLE = {"checkpoint_every": 2, "sample_every": 0}
FREE = {
    "log_every": 1, "sample_every": 3, "checkpoint_every": 3, "validate_every": 2, "validation_images": 3,
    "device": "cpu", "log": "jsonl", "steps": 8, "minutes": None, "compile": False,
    "shard": False,
}  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """A folder of 24 pictures with a validation split."""
    for index in range(24):
        path = tmp_path / "photos" / ("validation" if index % 4 == 0 else "train") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(index, (16, 16))).save(path)
    return tmp_path / "photos"


def go(run, folder, **options):
    return train(small("vqvae", folder, **{**WHOLE, **options}), run, progress=False)


def trained(path):
    return read_checked(path)[1]["step"]


# Who


def test_a_folder_is_trained_by_one_at_a_time(tmp_path, image_folder):
    messages = []

    def again(step):
        for call in (lambda: go(tmp_path / "run", image_folder), lambda: go(tmp_path / "run", image_folder, seed=5)):
            thread = threading.Thread(target=lambda call=call: messages.append(error_of(call)))
            thread.start()
            thread.join()
        messages.append(error_of(lambda: go(tmp_path / "run", image_folder)))

    def error_of(call):
        with pytest.raises(SmaltiError) as caught:
            call()
        return str(caught.value)

    train(small("vqvae", image_folder, steps=1), tmp_path / "run", on_step=again, progress=False)
    assert len(messages) == 3
    for message in messages:
        assert f"run is being trained by process {os.getpid()} on " in message and "since 20" in message
    assert not (tmp_path / "run" / LOCK).exists()
    go(tmp_path / "run", image_folder, steps=1)


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path):
    code = f"""
import pathlib, sys, time
from smalti.training.lock import locked
with locked(pathlib.Path({str(tmp_path)!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        who = f"is being trained by process {process.pid} on .* since 20"
        with pytest.raises(SmaltiError, match=who), locked(tmp_path):
            pass
        process.kill()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00", b"[]", b'{"process": "x"}'])
def test_whatever_a_lock_file_says_it_is_one_line(content, tmp_path):
    with ExitStack() as stack:
        stack.enter_context(locked(tmp_path))
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(SmaltiError, match="is being trained by another process; wait for it"), locked(tmp_path):
            pass


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="cannot be locked here .Operation not supported."), locked(tmp_path):
        pass


# What may change


def test_every_field_of_the_settings_is_free_or_not():
    """The table of docs/using.md: a new field is decisive until it is marked."""
    free = set(to_dict(RunSettings())) - set(decisive(RunSettings()))
    assert free == FREE.keys()
    assert set(decisive(RunSettings())) == {"batch_size", "seed", "precision", "keep", "patience"}


def test_what_does_not_decide_the_result_may_change(photos, tmp_path, monkeypatch, capsys):
    first = photos.rename(tmp_path / "first")
    go(tmp_path / "whole", first, steps=8)
    go(tmp_path / "parts", first, steps=4, decay_learning_rate=False)
    go(tmp_path / "same", first, steps=8, decay_learning_rate=False)
    second = first.rename(tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    go(tmp_path / "parts", "./second/", **{**FREE, "steps": 6}, decay_learning_rate=False)
    go(tmp_path / "parts", second, **FREE, decay_learning_rate=False)
    assert "goes on from step 4 to 6 instead of 4; its schedules are now those of 6 steps" in capsys.readouterr().err
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "same"))  # no schedule depends on the length here
    assert read_json(tmp_path / "parts" / "experiment.json")["history"] == [
        {"done": 4, "steps": 4},
        {"done": 6, "steps": 6},
    ]
    assert [record["step"] for record in read_metrics(tmp_path / "parts" / "metrics.jsonl")] == [2, 4, 5, 6, 7, 8]


def test_fewer_steps_than_are_done_are_none(image_folder, tmp_path, capsys):
    go(tmp_path, image_folder, steps=4)
    before = weights(tmp_path)
    go(tmp_path, image_folder, steps=2)
    assert "4 steps are done, more than --steps 2: nothing is left to do" in capsys.readouterr().err
    assert same(before, weights(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 5}, r"run.seed: 0 -> 5"),
        ({"width": 4}, r"model.networks.width: 8 -> 4"),
        ({"learning_rate": 1.0}, r"optimizer.learning_rate: 0.004 -> 1.0"),
        ({"keep": "best"}, r"run.keep: 'last' -> 'best'"),
    ],
)
def test_what_decides_the_result_is_refused(options, message, image_folder, tmp_path):
    go(tmp_path, image_folder, steps=2)
    with pytest.raises(SmaltiError, match=rf"holds a run with other settings: {message}.*--from"):
        go(tmp_path, image_folder, steps=2, **options)


def test_validation_decides_where_the_best_is_kept(photos, tmp_path):
    go(tmp_path / "run", photos, steps=2, keep="best", validate_every=2)
    with pytest.raises(SmaltiError, match=r"run.validate_every: 2 -> 1"):
        go(tmp_path / "run", photos, steps=2, keep="best", validate_every=1)


def removed(photos):
    (photos / "train" / "01.png").unlink()


def replaced(photos):
    Image.fromarray(draw_image(99, (16, 16))).save(photos / "train" / "01.png")


def swapped(photos):
    one, other = (photos / "train" / name for name in ("01.png", "02.png"))
    one.rename(photos / "x")
    other.rename(one)
    (photos / "x").rename(other)


def held_out_replaced(photos):
    Image.fromarray(draw_image(99, (16, 16))).save(photos / "validation" / "00.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed, "the train data have changed: 18 images then, 17 now"),
        (replaced, "the train data have changed: 18, but others"),
        (swapped, "the train data have changed: 18, but others"),
        (held_out_replaced, "the validation data have changed: 6, but others"),
    ],
)
def test_changed_data_are_refused(change, message, photos, tmp_path):
    go(tmp_path / "run", photos, steps=2)
    change(photos)
    with pytest.raises(SmaltiError, match=message):
        go(tmp_path / "run", photos, steps=4)
    where = read_json(tmp_path / "run" / "environment.json")
    assert where["data"]["train"]["num_images"] == 18
    assert where.items() >= environment("cpu").items() and where["commit"] and where["threads"]


# What is damaged


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path: path.write_bytes(b""),
    "nonsense": lambda path: path.write_bytes(b"nonsense" * 20),
    "other": lambda path: write_checked(path, {"a": torch.zeros(2)}, ["no checkpoint"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(damage, image_folder, tmp_path):
    go(tmp_path, image_folder, steps=6)
    before = weights(tmp_path), without_speed(tmp_path), latest_checkpoint(tmp_path / "checkpoints").read_bytes()
    DAMAGES[damage](latest_checkpoint(tmp_path / "checkpoints"))
    with pytest.warns(UserWarning, match=r"step-000000006.*; the run goes on from step-000000004.safetensors, step 4"):
        go(tmp_path, image_folder, steps=6)
    assert same(before[0], weights(tmp_path)) and before[1] == without_speed(tmp_path)
    assert before[2] == latest_checkpoint(tmp_path / "checkpoints").read_bytes()
    for path in checkpoints(tmp_path / "checkpoints").values():
        flip(path)
    with pytest.raises(SmaltiError, match=r"step-000000006.*\(so are 1 older ones\); without checkpoints"):
        go(tmp_path, image_folder, steps=6)


def test_every_bit_of_a_checked_file_counts(tmp_path):
    path = tmp_path / "x.safetensors"
    write_checked(path, {"a": torch.arange(3.0), "b": torch.zeros(0), "c": torch.tensor(True)}, {"step": 1})
    good = path.read_bytes()
    tensors, record = read_checked(path)
    assert record == {"step": 1} and torch.equal(tensors["a"], torch.arange(3.0)) and tensors["c"].item() is True
    for place in range(0, 8 * len(good), 13):
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            tensors, record = read_checked(path)
        except SmaltiError:
            continue
        same_tensors = [tensors[name].tolist() for name in "abc"] == [[0, 1, 2], [], True]
        assert same_tensors and record == {"step": 1}, place  # a space of the header, say


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda path: path.write_bytes(b'nonsense\n\xff\xfe\n[]\n{"step": "x"}\n' + path.read_bytes()), [2, 4, 6]),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"step": 4', b'"step": }', 1)), [2, 6]),
        (lambda path: path.write_bytes(b"\x00" * 100), [6]),
        (lambda path: (path.unlink(), path.mkdir()), [6]),
        (lambda path: path.unlink(), [6]),
    ],
)
def test_a_damaged_log_stops_nothing(damage, kept, image_folder, tmp_path):
    go(tmp_path, image_folder, steps=4)
    damage(tmp_path / "metrics.jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        go(tmp_path, image_folder, steps=6)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == kept


def test_a_finished_run_mends_its_model(photos, tmp_path):
    options = {"steps": 4, "keep": "best", "validate_every": 2, "checkpoint_every": 2, "learning_rate": 1e-3}
    run = go(tmp_path / "run", photos, **options)
    names = [name for name in ("config.json", "model.safetensors") for name in (name, f"last/{name}")]
    good = {name: (run / name).read_bytes() for name in [*names, BEST, "last/experiment.json"]}
    assert read_json(run / BEST)["step"] == 4
    for name in good:
        (run / name).write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            go(run, photos, **options)
        assert good[name] == (run / name).read_bytes(), name


def test_experiment_json_is_written_anew_from_the_checkpoint(image_folder, tmp_path):
    go(tmp_path, image_folder, steps=2)
    good = (tmp_path / "experiment.json").read_bytes()
    for damage in (b"", b"{", b"\xff"):
        (tmp_path / "experiment.json").write_bytes(damage)
        with pytest.warns(UserWarning, match="it is written anew"):
            go(tmp_path, image_folder, steps=2)
        assert (tmp_path / "experiment.json").read_bytes() == good
        (tmp_path / "experiment.json").write_bytes(damage)
        with (
            pytest.warns(UserWarning, match="it is written anew"),
            pytest.raises(SmaltiError, match="seed: 0 -> 1"),
        ):
            go(tmp_path, image_folder, steps=2, seed=1)


def test_the_rest_of_a_dead_process_is_removed(image_folder, tmp_path):
    for folder in (tmp_path, tmp_path / "checkpoints", tmp_path / "samples"):
        folder.mkdir(exist_ok=True)
        (folder / f"{PARTIAL}x.safetensors").write_bytes(b"half")
    go(tmp_path, image_folder, steps=1)
    assert [*tmp_path.rglob(f"{PARTIAL}*")] == []
    with atomic_path(tmp_path / ("a" * 255)) as path:  # as long as a name can be
        path.write_text("x")


def test_a_full_disk_at_the_last_model_is_made_good_by_the_next_call(image_folder, tmp_path, monkeypatch):
    from smalti import pretrained

    real, calls = pretrained.write_tensors, []

    def full(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            raise SmaltiError(f"cannot write {path}: no space left on device")
        return real(path, *rest)

    go(tmp_path / "whole", image_folder, steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "write_tensors", full)
        with pytest.raises(SmaltiError, match="no space left"):
            go(tmp_path / "run", image_folder, steps=4)
    go(tmp_path / "run", image_folder, steps=4)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))


# From a model


def test_a_run_starts_from_a_model(photos, image_folder, tmp_path, capsys):
    source = go(tmp_path / "source", image_folder, steps=4)
    start = {"start_from": str(source)}

    def begin(run, **options):
        settings = {**WHOLE, "steps": 1, "learning_rate": 0.0, "weight_decay": 0.0, "ema_decay": 0.0, **options}
        return train(small("vqvae", photos, **settings), tmp_path / run, **start, progress=False)

    begin("same")
    theirs, ours = Autoencoder.from_pretrained(source), Autoencoder.from_pretrained(tmp_path / "same")
    for (name, old), (_, new) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert torch.equal(old, new), name
    assert "starts anew" not in capsys.readouterr().err
    recorded = read_json(tmp_path / "same" / "experiment.json")["start"]
    assert recorded == {"model": "../source", "hash": theirs.source_hash}

    begin("larger", codebook_size=32)
    told = capsys.readouterr().err
    assert "bottleneck.codebook.table (16, 16) instead of (32, 16): starts anew" in told
    assert "bottleneck.codebook.ready belongs to it: starts anew" in told and "networks" not in told
    with pytest.raises(SmaltiError, match="nothing of .*source fits this model"):
        begin("other", width=4, code_dim=8, codebook_size=8)

    source.rename(tmp_path / "gone")
    begin("same", steps=2)  # needs it no more
    train(small("vqvae", photos, **WHOLE, steps=3, learning_rate=0.0, weight_decay=0.0, ema_decay=0.0),
          tmp_path / "same", progress=False)  # fmt: skip
    with pytest.raises(SmaltiError, match="start: None -> "):
        train(small("vqvae", image_folder, **WHOLE, steps=4), tmp_path / "gone", start_from=str(tmp_path / "same"))
    with pytest.raises(SmaltiError, match="no such folder"):
        begin("new")


def test_a_start_that_was_killed_before_its_first_checkpoint_is_not_forgotten(image_folder, tmp_path):
    source = go(tmp_path / "source", image_folder, steps=2, seed=7)
    experiment = small("vqvae", image_folder, **WHOLE, steps=2)
    whole = train(experiment, tmp_path / "whole", start_from=str(source), progress=False)

    def cut(step):
        raise SystemError("power cut")

    with pytest.raises(SystemError):
        train(experiment, tmp_path / "run", start_from=str(source), on_step=cut, progress=False)
    train(experiment, tmp_path / "run", progress=False)
    assert same(weights(whole), weights(tmp_path / "run"))


def test_an_empty_data_set_of_records_is_json(image_folder, tmp_path):
    """Nothing numpy gets into a checkpoint's record."""
    run = go(tmp_path, image_folder, steps=2)
    record = read_checked(latest_checkpoint(run / "checkpoints"))[1]
    assert json.loads(json.dumps(record)) == record and {"step", "notes", "data", "experiment"} == record.keys()
    assert isinstance(record["data"]["train"]["num_images"], int) and not isinstance(record["step"], np.integer)
