"""The loop: exact resume, a stop between steps, a NaN that is named."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.files import read_tensors
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import RECIPES
from smalti.training.log import read_metrics
from smalti.training.loop import Interrupted, train
from smalti.training.settings import RunSettings
from smalti.training.state import checkpoints

SMALL = {"image_size": 16, "width": 8, "warmup": 2}
RUN = {"precision": "fp32", "batch_size": 4, "log_every": 2, "sample_every": 4, "checkpoint_every": 2}
LONG = 100  # steps of a run that is killed on its way
SYSTEMS = {"ae": {}, "vae": {}, "vqvae": {"codebook_size": 16}, "dvae": {"codebook_size": 16}}


def small(system, folder, steps=6, **options):
    settings = {
        "steps": steps,
        **RUN,
        **{name: options.pop(name) for name in [*options] if name in vars(RunSettings())},
    }
    recipe = RECIPES[system](**{"data": str(folder), **SMALL, **SYSTEMS[system], **options})
    return recipe.with_settings(**settings)


def latest_checkpoint(folder):
    return [*checkpoints(Path(folder)).values()][-1] if checkpoints(Path(folder)) else None


def weights(run):
    return read_tensors(Path(run) / "model.safetensors")[0]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def without_speed(run):
    return [
        {k: v for k, v in record.items() if k != "images_per_second"} for record in read_metrics(run / "metrics.jsonl")
    ]


def stop_at(monkeypatch, step):
    """Send Ctrl-C to ourselves while step `step` (from 0) runs."""
    from smalti.training import tasks

    original = tasks.AutoencoderTask.before_step

    def interrupting(self, now):
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, now)

    monkeypatch.setattr(tasks.AutoencoderTask, "before_step", interrupting)


NOISY = {"noise": "gaussian", "noise_level": 0.2, "noise_lowest": 0.0}


@pytest.mark.parametrize(("system", "options"), [*((system, {}) for system in SYSTEMS), ("ae", NOISY)])
def test_resume_is_exact_to_the_bit(system, options, image_folder, tmp_path, monkeypatch):
    train(small(system, image_folder, **options), tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)  # stops after step 3, between two checkpoints and between two log lines
        with pytest.raises(Interrupted, match="stopped at step 3 of 6; the same command goes on"):
            train(small(system, image_folder, **options), tmp_path / "parts", progress=False)
    train(small(system, image_folder, **options), tmp_path / "parts", progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert same(*(read_tensors(latest_checkpoint(tmp_path / run / "checkpoints"))[0] for run in ("whole", "parts")))
    assert without_speed(tmp_path / "whole") == without_speed(tmp_path / "parts")


def test_killed_without_warning_it_resumes_exactly_too(image_folder, tmp_path):
    """SIGKILL at no particular step, in another process; then the same command again."""
    code = (
        "import sys; sys.path[:0] = ['tests']; from training.test_loop import LONG, small, train;"
        f"train(small('dvae', {str(image_folder)!r}, steps=LONG), {str(tmp_path / 'killed')!r}, progress=False)"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    )
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.time() + 60
    while time.time() < deadline and not (checkpoints.exists() and list(checkpoints.glob("step-*"))):
        time.sleep(0.05)
    process.kill()
    process.wait()
    reached = int(latest_checkpoint(checkpoints).stem.removeprefix("step-"))
    assert 0 < reached < LONG
    for run in ("killed", "whole"):
        train(small("dvae", image_folder, steps=LONG), tmp_path / run, progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_finished_run_is_left_alone(image_folder, tmp_path):
    experiment = small("vqvae", image_folder, steps=2)
    train(experiment, tmp_path, progress=False)
    before = (tmp_path / "model.safetensors").read_bytes()
    train(experiment, tmp_path, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(image_folder, tmp_path):
    train(small("ae", image_folder, steps=2), tmp_path, progress=False)
    with pytest.raises(
        SmaltiError, match=r"holds a run with other settings: run\.batch_size: 4 -> 5.*choose another --out"
    ):
        train(small("ae", image_folder, steps=2, batch_size=5), tmp_path, progress=False)


def test_a_nan_names_the_step_and_the_term_and_keeps_the_checkpoint(image_folder, tmp_path, monkeypatch):
    from smalti.training import tasks

    original = tasks.autoencoder_loss

    calls = itertools.count()

    def poisoned(*given):
        loss = original(*given)
        if next(calls) == 4:
            loss.terms["kl_nats"] = torch.tensor(float("nan"))
            return loss._replace(total=loss.total * float("nan"))
        return loss

    monkeypatch.setattr(tasks, "autoencoder_loss", poisoned)
    with pytest.raises(SmaltiError, match="step 5: kl_nats is nan; the last good checkpoint is kept"):
        train(small("vae", image_folder), tmp_path, progress=False)
    assert latest_checkpoint(tmp_path / "checkpoints").name == "step-000000004.safetensors"
    calls = itertools.count(2)  # the third step of a run without checkpoints
    with pytest.raises(SmaltiError, match="step 3: kl_nats is nan; there is no checkpoint yet"):
        train(small("vae", image_folder, checkpoint_every=6, validate_every=0), tmp_path / "other", progress=False)
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_a_damaged_checkpoint_is_named(image_folder, tmp_path):
    train(small("ae", image_folder, steps=2), tmp_path, progress=False)
    latest_checkpoint(tmp_path / "checkpoints").write_bytes(b"nonsense")
    with pytest.raises(SmaltiError, match="step-000000002.safetensors is cut off"):
        train(small("ae", image_folder, steps=2), tmp_path, progress=False)


def test_the_run_folder_holds_what_it_promises(image_folder, tmp_path):
    train(small("dvae", image_folder), tmp_path, card=lambda model, experiment: "# a card\n", progress=False)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "config.json", "environment.json", "experiment.json", "metrics.jsonl", "model.safetensors",
        "checkpoints/step-000000004.safetensors", "checkpoints/step-000000006.safetensors",
        "samples/step-000000004.png", "samples/step-000000006.png",
    }  # fmt: skip
    record = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert {"step", "loss", "distortion_nats", "kl_nats", "gradient_norm", "learning_rate", "beta", "temperature",
            "images_per_second", "images"} <= set(record)  # fmt: skip
    assert Autoencoder.from_pretrained(tmp_path).encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 4)


def test_accumulation_takes_several_batches_a_step(image_folder, tmp_path):
    train(small("vqvae", image_folder, steps=2, accumulate=3), tmp_path, progress=False)
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["images"] == 2 * 3 * 4


def test_averaged_weights_are_saved_and_differ_from_the_last_ones(image_folder, tmp_path):
    train(small("ae", image_folder, ema_decay=0.9), tmp_path, progress=False)
    checkpoint = read_tensors(latest_checkpoint(tmp_path / "checkpoints"))[0]
    saved = weights(tmp_path)
    assert same(saved, {name: checkpoint[f"average.{name}"] for name in saved})
    assert not same(saved, {name: checkpoint[f"model.{name}"] for name in saved})


def test_bf16_trains(image_folder, tmp_path):
    train(small("dvae", image_folder, steps=2, precision="bf16"), tmp_path, progress=False)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_dynamic_binarisation_draws_anew(tmp_path):
    import gzip
    import struct

    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (24, 28, 28), dtype=np.uint8)
    data = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape) + images.tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
    experiment = RECIPES["mnist_vae"](data=str(tmp_path)).with_settings(steps=2, batch_size=4, log_every=1)
    train(experiment, tmp_path / "run", progress=False)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["distortion_nats"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"seed": -1}, "seed must not be negative: -1"),
        ({"device": "quantum"}, "--device quantum cannot be used here"),
        ({"precision": "fp8"}, "auto, fp32 or bf16, not 'fp8'"),
        ({"stride": 3}, "powers of two"),
        ({"data": "/no/where"}, "no such folder"),
    ],
)
def test_bad_settings_are_one_line_errors(options, message, image_folder, tmp_path):
    with pytest.raises(SmaltiError, match=message):
        train(small("dvae", image_folder, **options), tmp_path, progress=False)


def test_an_unwritable_run_folder_is_named(image_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SmaltiError, match="cannot write to .*choose another --out"):
        train(small("ae", image_folder), tmp_path / "file", progress=False)


def test_a_line_that_a_crash_cut_off_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]


def test_a_model_that_restores_says_so_and_shows_noisy_restored_and_clean(image_folder, tmp_path):
    from PIL import Image

    train(small("ae", image_folder, steps=2, sample_every=2), tmp_path / "plain", progress=False)
    train(small("ae", image_folder, steps=2, sample_every=2, **NOISY), tmp_path / "noisy", progress=False)
    assert not same(weights(tmp_path / "plain"), weights(tmp_path / "noisy"))
    assert vars(Autoencoder.from_pretrained(tmp_path / "noisy").config.corruption).items() >= NOISY.items()
    heights = []
    for run in ("plain", "noisy"):
        with Image.open(tmp_path / run / "samples" / "step-000000002.png") as picture:
            heights.append((picture.height + 2) / (2 * 16 + 2))
    assert heights[1] == heights[0] * 3 / 2
