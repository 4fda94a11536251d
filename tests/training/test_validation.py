"""Validation while training disturbs nothing, resumes exactly, keeps the best, ends in time."""

import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import smalti
from smalti.errors import SmaltiError
from smalti.files import read_checked, read_json, read_tensors
from smalti.models.autoencoder import Autoencoder
from smalti.modes import using
from smalti.ops.precision import arithmetic
from smalti.priors.code_model import CodeModel
from smalti.recipes import RECIPES
from smalti.training import loop, tasks
from smalti.training.log import read_metrics
from smalti.training.loop import Interrupted, train
from smalti.training.settings import RunSettings
from smalti.training.stepping import validated
from training.test_loop import SYSTEMS, latest_checkpoint, same, small, stop_at, weights, without_speed

OFTEN = {"validate_every": 2, "validation_images": 5}
FLOAT32 = partial(arithmetic, "fp32", "cpu")
QUANTIZERS = ("fsq", "lfq", "bsq", "rvq", "pq")
BEST = {**OFTEN, "keep": "best"}
FOUND = {"validation_loss", "validation_distortion_nats", "validation_kl_nats", "validation_psnr_db"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, data):
    return train(small("vqvae", data, steps=2), tmp_path_factory.mktemp("tokenizer") / "run", progress=False)


def any_kind(kind, data, tokenizer, **settings):
    """A small training of each of the four systems, or of a prior with a label and every dropout."""
    if kind in SYSTEMS:
        return small(kind, data, **settings)
    if kind in QUANTIZERS:
        return RECIPES[kind](data=str(data), image_size=16, width=8).with_settings(batch_size=4, **settings)
    network = {"width": 8, "layers": 1, "heads": 2, "label": "class"}
    if kind == "maskgit":
        network.pop("label")  # it takes text only
    prior = RECIPES[kind](tokenizer=str(tokenizer), data=str(data), **network)
    common = {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2, "sample_every": 4}
    return prior.with_settings(**(common | settings))


def checkpoint(run):
    return read_checked(latest_checkpoint(run / "checkpoints"))


def validations(run):
    return {record["step"]: record["validation_loss"] for record in read_metrics(run / "metrics.jsonl")
            if "validation_loss" in record}  # fmt: skip


def scripted(monkeypatch, losses):
    """Validations find these losses, one after the other, by the number of the step."""
    calls = {"step": 0}
    finish = loop.TrainState.finish_step

    def counting(self):
        finish(self)
        calls["step"] = self.step

    monkeypatch.setattr(loop.TrainState, "finish_step", counting)
    monkeypatch.setattr(tasks.AutoencoderTask, "validate", lambda self, model: {"loss": losses[calls["step"]]})


@pytest.mark.parametrize("kind", [*SYSTEMS, "transformer"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_validation_changes_no_bit_of_the_training(kind, ema_decay, data, tokenizer, tmp_path):
    for name, settings in (("off", {"validate_every": 0}), ("on", {"validate_every": 1, "validation_images": 0})):
        experiment = any_kind(kind, data, tokenizer, **settings)
        experiment = replace(experiment, optimizer=replace(experiment.optimizer, ema_decay=ema_decay))
        train(experiment, tmp_path / name, progress=False)
    assert len(validations(tmp_path / "on")) == 6 and not validations(tmp_path / "off")
    (off, _), (on, _) = (checkpoint(tmp_path / name) for name in ("off", "on"))
    assert same(*({name: value for name, value in found.items() if name != "extra.restarted"} for found in (off, on)))
    assert (tmp_path / "off" / "model.safetensors").read_bytes() == (tmp_path / "on" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", [*SYSTEMS, *QUANTIZERS, "transformer", "maskgit"])
def test_validation_leaves_models_buffers_modes_and_random_numbers_alone(kind, data, tokenizer, tmp_path):
    experiment = any_kind(kind, data, tokenizer, **OFTEN)
    (tmp_path / "run").mkdir()
    task = loop._task(experiment, "cpu", tmp_path / "run", False)
    task.loss(next(task.batches(0)), 0)  # what has been observed waits for `update`
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    modes, state = [module.training for module in task.model.modules()], torch.get_rng_state()
    extra = {name: value.clone() for name, value in task.state().items()}
    found = [validated(task, task.model, FLOAT32) for _ in range(2)]
    assert found[0] == found[1] and np.isfinite(found[0]["validation_loss"])
    assert same(before, task.model.state_dict()) and same(extra, task.state())
    assert modes == [module.training for module in task.model.modules()]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", SYSTEMS)
def test_validation_measures_the_loss_on_the_held_out_images(kind, data, tmp_path):
    """Against the loss of all eight images at once, and the evaluation protocol."""
    experiment = small(kind, data, steps=2, validate_every=2, validation_images=0, batch_size=3)
    train(experiment, tmp_path / "run", progress=False)
    record = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    metrics = smalti.evaluate(str(tmp_path / "run"), str(data), split="validation")["metrics"]
    assert set(record) >= FOUND
    assert record["validation_distortion_nats"] == pytest.approx(metrics["distortion_nats"], rel=1e-4)
    assert record["validation_psnr_db"] == pytest.approx(metrics["psnr_db"], rel=1e-4)
    discrete = {"usage", "perplexity"}
    assert {name for name in discrete if f"validation_{name}" in record} == discrete & metrics.keys()
    for name in discrete & metrics.keys():
        assert record[f"validation_{name}"] == pytest.approx(metrics[name], rel=1e-4)
    model = Autoencoder.from_pretrained(tmp_path / "run")
    images = tasks.some_images(str(data), "validation", experiment.model.preprocessing, 100)
    with using(model):
        loss = tasks.autoencoder_loss(model, images, experiment.loss, experiment.loss.beta.end)
    assert len(images) == 8 and record["validation_loss"] == pytest.approx(loss.total.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["vqvae", "transformer"])
def test_means_do_not_depend_on_the_batch_size(kind, data, tokenizer, tmp_path):
    found = []
    for size in (1, 3, 8):
        torch.manual_seed(0)
        folder = tmp_path / str(size)
        folder.mkdir()
        experiment = any_kind(kind, data, tokenizer, batch_size=size, validation_images=0)
        task = loop._task(experiment, "cpu", folder, False)
        found.append(validated(task, task.model, FLOAT32))
    assert found[1] == pytest.approx(found[0], rel=1e-5) and found[2] == pytest.approx(found[0], rel=1e-5)


def test_a_prior_validates_in_bits_per_code_on_cached_codes(data, tokenizer, tmp_path):
    train(any_kind("transformer", data, tokenizer, validation_images=0), tmp_path / "run", progress=False)
    record = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert len(read_tensors(tmp_path / "run" / "codes-validation.safetensors")[0]["codes"]) == 8
    metrics = smalti.evaluate(str(tmp_path / "run"), str(data), split="validation")["metrics"]
    assert record["validation_bits_per_code"] == pytest.approx(metrics["bits_per_code"], rel=1e-4)
    assert record["validation_loss"] == pytest.approx(metrics["bits_per_code"] * np.log(2), rel=1e-4)


def test_the_perceptual_term_counts_and_the_adversary_does_not(data, tmp_path, monkeypatch):
    class Brightness(torch.nn.Module):
        def forward(self, images):
            return [images.mean(1, keepdim=True) + torch.arange(2.0).view(1, 2, 1, 1)]

    from smalti.models import features

    monkeypatch.setitem(features.FEATURES, "effnet", Brightness)
    photo = {"perceptual": "effnet", "adversarial_weight": 0.1, "adversarial_start": 0.0, "discriminator_width": 8}
    photo |= {"perceptual_weight": 0.5}
    train(small("ae", data, steps=1, validate_every=1, **photo), tmp_path, progress=False)
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert "validation_perceptual" in record and "validation_adversarial" not in record
    expected = record["validation_distortion_nats"] / (3 * 16 * 16) + 0.5 * record["validation_perceptual"]
    assert record["validation_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [*SYSTEMS, "transformer"])
def test_resume_with_the_best_kept_is_exact(kind, data, tokenizer, tmp_path, monkeypatch):
    """Stopped by Ctrl-C in the middle, then killed between a validation and its checkpoint, then to the end."""
    experiment = any_kind(kind, data, tokenizer, **{**BEST, "validate_every": 3, "checkpoint_every": 4, "steps": 8})
    train(experiment, tmp_path / "whole", progress=False)
    task = tasks.AutoencoderTask if kind in SYSTEMS else loop.PriorTask
    with monkeypatch.context() as patch:
        before = task.before_step
        patch.setattr(
            task,
            "before_step",
            lambda self, now: (now == 1 and os.kill(os.getpid(), signal.SIGINT)) or before(self, now),
        )
        with pytest.raises(Interrupted, match="stopped at step 2 of 8"):
            train(experiment, tmp_path / "parts", progress=False)
    assert (tmp_path / "parts" / "model.safetensors").exists()  # before any validation it holds the last

    def killed(step):
        if step.step == 7:
            raise SystemError("power cut")

    with pytest.raises(SystemError, match="power cut"):  # after the validation of step 6; the checkpoint is of step 4
        train(experiment, tmp_path / "parts", progress=False, on_step=killed)
    train(experiment, tmp_path / "parts", progress=False)
    for name in ("model.safetensors", "config.json", "best.json", "last/model.safetensors", "last/config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    (whole, notes), (parts, other) = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert same(whole, parts) and notes["notes"]["kept"] == other["notes"]["kept"]
    assert without_speed(tmp_path / "whole") == without_speed(tmp_path / "parts")


def test_the_best_is_kept_with_the_last_beside_it(data, tmp_path, capsys):
    """Trained until it gets worse: the kept weights give the smallest recorded loss when they are measured again."""
    experiment = small("vqvae", data, steps=12, **BEST, learning_rate=0.3, decay_learning_rate=False)
    train(experiment, tmp_path / "run", card=lambda *_, **more: f"{more}\n", progress=False)
    found = validations(tmp_path / "run")
    step = min(found, key=found.__getitem__)
    assert step < 12, "the test needs a run that gets worse"
    task = loop._task(experiment, "cpu", tmp_path, False)
    again = validated(task, Autoencoder.from_pretrained(tmp_path / "run"), FLOAT32)
    assert again["validation_loss"] == pytest.approx(found[step], rel=1e-6)
    last = validated(task, Autoencoder.from_pretrained(tmp_path / "run" / "last"), FLOAT32)
    assert last["validation_loss"] == pytest.approx(found[12], rel=1e-6)
    assert same(weights(tmp_path / "run" / "last"),
                {name.removeprefix("average."): value for name, value in checkpoint(tmp_path / "run")[0].items()
                 if name.startswith("average.")})  # fmt: skip
    assert read_json(tmp_path / "run" / "best.json")["step"] == step
    assert f"'step': {step}" in (tmp_path / "run" / "README.md").read_text()
    assert (tmp_path / "run" / "last" / "README.md").read_text() == "{}\n"
    told = capsys.readouterr().err
    assert f"holds step {step}, the best: validation_loss {found[step]:.6g}; the last, step 12" in told


def test_card_and_info_name_the_step_and_verbs_open_both(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    scripted(monkeypatch, {2: 3.0, 4: 1.0, 6: float("nan")})
    smalti.train(small("dvae", data, **BEST), run)
    assert "those after step 4, the best of the run by validation loss (1)" in (run / "README.md").read_text()
    assert "the best" not in (run / "last" / "README.md").read_text()
    assert smalti.info(str(run))["holds"] == "step 4, the best by validation_loss (1)"
    assert "holds" not in smalti.info(str(run / "last"))
    for folder in (run, run / "last"):
        smalti.evaluate(str(folder), str(data), split="validation")
        assert "psnr_db" in (folder / "README.md").read_text()
    assert "step 4" in (run / "README.md").read_text()


def test_patience_ends_a_run_and_it_stays_ended(data, tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, {2: 2.0, 4: 1.0, 6: 1.0, 8: 1.5, 10: 0.0})
    experiment = small("ae", data, steps=10, **BEST, patience=2)
    train(experiment, tmp_path, progress=False)
    told = capsys.readouterr().err
    assert "ended at step 8 of 10: no better validation_loss than that of step 4 in 2 validations" in told
    assert "holds step 4, the best: validation_loss 1; the last, step 8" in told
    assert latest_checkpoint(tmp_path / "checkpoints").stem == "step-000000008"
    assert (tmp_path / "samples" / "step-000000008.png").exists()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    train(experiment, tmp_path, progress=False)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "does not go on, choose another --out" in told
    changed = [path for path, content in before.items() if path.read_bytes() != content]
    assert [path.name for path in changed if path.name != "environment.json"] == []


def test_patience_counts_through_an_interruption(data, tmp_path, monkeypatch):
    scripted(monkeypatch, {2: 1.0, 4: 2.0, 6: 2.0, 8: 0.0})
    experiment = small("ae", data, steps=8, **OFTEN, patience=2)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            train(experiment, tmp_path, progress=False)
    train(experiment, tmp_path, progress=False)
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 6


def test_every_line_is_complete(data, tmp_path):
    train(small("vqvae", data, steps=7, log_every=3, validate_every=2), tmp_path, progress=False)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [2, 3, 4, 6, 7]
    assert [record["step"] for record in records if "validation_loss" in record] == [2, 4, 6, 7]
    assert all({"loss", "images_per_second", "learning_rate", "gradient_norm"} <= set(record) for record in records)


@pytest.fixture
def unsplit(tmp_path, data):
    """Data without images for validation: a folder train/ and a validation/ that are one image short of a split."""
    from smalti.data import splits

    folder = tmp_path / "unsplit" / "train"
    folder.mkdir(parents=True)
    named = [path for path in sorted(data.rglob("*.png")) if splits.split_by_name(f"train/{path.name}") == "train"]
    for path in named[:9]:
        shutil.copy(path, folder)
    return folder.parent


def test_without_a_validation_split_a_line_says_so(unsplit, tmp_path, capsys):
    train(small("ae", unsplit), tmp_path / "run", progress=False)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "nothing is validated while training:" in told and "validation 0" in told
    assert not validations(tmp_path / "run")
    train(small("ae", unsplit, validate_every=0), tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [{"keep": "best"}, {"patience": 3}])
def test_what_needs_validation_is_refused_without_it(options, unsplit, tmp_path):
    (name,) = options
    with pytest.raises(SmaltiError, match=f"--{name} {options[name]} needs a validation split.*leave --{name} out"):
        train(small("ae", unsplit, **options), tmp_path / "run", progress=False)
    with pytest.raises(SmaltiError, match=f"{name} {options[name]} has no effect without validate_every; leave it out"):
        RunSettings(validate_every=0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validate_every": -1}, "validate_every must not be negative: -1"),
        ({"validation_images": -1}, "validation_images must not be negative: -1"),
        ({"patience": -2}, "patience must not be negative: -2"),
        ({"keep": "first"}, "keep must be last or best, not 'first'"),
        ({"log": "wandb"}, "log must be jsonl or tensorboard, not 'wandb'"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(SmaltiError, match=message):
        RunSettings(**options)


def test_a_prior_keeps_its_best_and_both_open(data, tokenizer, tmp_path):
    run = train(any_kind("transformer", data, tokenizer, **BEST), tmp_path / "run", progress=False)
    for folder in (run, run / "last"):
        assert CodeModel.from_pretrained(folder).config.tokenizer == str(Path(tokenizer).resolve())
