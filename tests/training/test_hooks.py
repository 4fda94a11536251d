"""Hooks and event files get every step once, through an interruption and a power cut."""

import sys

import numpy as np
import pytest

import smalti
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.training.log import read_metrics
from smalti.training.loop import Interrupted, train
from training.test_loop import same, small, stop_at, weights

OFTEN = {"validate_every": 2, "validation_images": 5}


def test_a_hook_gets_every_step_once_also_through_an_interruption(data, tmp_path, monkeypatch):
    steps, records, pictures = [], [], []

    def hook(step):
        steps.append(step.step)
        records.extend([step.record] if step.record else [])
        pictures.extend([step.step] if step.picture else [])
        assert {"loss", "gradient_norm"} <= set(step.terms)
        assert not any(term.requires_grad for term in step.terms.values())
        assert isinstance(step.model, Autoencoder)

    experiment = small("dvae", data, **OFTEN)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Interrupted):
            train(experiment, tmp_path, progress=False, on_step=hook)
    train(experiment, tmp_path, progress=False, on_step=hook)
    assert steps == [1, 2, 3, 4, 5, 6] and pictures == [4, 6]
    assert records == read_metrics(tmp_path / "metrics.jsonl")


def test_what_a_hook_raises_comes_through_and_the_run_goes_on(data, tmp_path):
    def hook(step):
        if step.step == 5:
            raise ZeroDivisionError("the user's own")

    experiment = small("vqvae", data)
    train(experiment, tmp_path / "whole", progress=False)
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        smalti.train(experiment, tmp_path / "parts", on_step=hook)
    train(experiment, tmp_path / "parts", progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_hook_is_no_flag(capsys):
    from smalti.apps.cli import main

    assert main(["train", "dvae", "--help"]) == 0
    told = capsys.readouterr().out
    assert "on_step" not in told and "--patience" in told and "--keep {last,best}" in told


def events_of(run):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(run / "tensorboard"), size_guidance={reader.IMAGES: 0, reader.SCALARS: 0})
    return found.Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_event_files_hold_the_lines_also_after_a_power_cut(data, tmp_path):
    pytest.importorskip("tensorboard")
    experiment = small("dvae", data, **OFTEN, log="tensorboard", log_every=1, checkpoint_every=4)

    def cut(step):
        if step.step == 6:
            raise SystemError("power cut")

    with pytest.raises(SystemError):
        train(experiment, tmp_path, progress=False, on_step=cut)
    train(experiment, tmp_path, progress=False)
    events, records = events_of(tmp_path), read_metrics(tmp_path / "metrics.jsonl")
    written = {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}
    expected = {name: {record["step"]: float(np.float32(record[name])) for record in records if name in record}
                for name in {name for record in records for name in record}}  # fmt: skip
    assert written == expected
    assert all(len(events.Scalars(name)) == len(written[name]) for name in written)  # no step twice
    assert [event.step for event in events.Images("samples")] == [4, 6]


def test_missing_tensorboard_is_said_before_anything_happens(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SmaltiError, match=r"--log tensorboard needs TensorBoard: pip install 'smalti\[track\]'"):
        train(small("ae", data, log="tensorboard"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
