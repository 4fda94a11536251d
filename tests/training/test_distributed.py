"""Training on several processes: one codebook, the results of one process, one voice, exact recovery."""

import signal
import time

import pytest
import torch

import smalti
from smalti.training.log import read_metrics
from training.company import MEMBERS, command, ended, experiments, together
from training.test_loop import latest_checkpoint, same, small, weights

SAMPLED = {"dvae reinforce": 10}  # steps, of fifty, after which rounding may have decided a sampled code
QUICK = ["vq ema", "vq simvq", "residual dropout", "lfq", "dvae distance", "dvae gumbel_rao", "noise and shifts",
         "accumulated", "adversarial", "maskgit"]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(image_folder, tmp_path_factory):
    from smalti.training.loop import train

    folder = tmp_path_factory.mktemp("tokenizer")
    return train(small("vqvae", image_folder, steps=2, sample_every=0, validate_every=0), folder, progress=False)


def test_one_codebook_in_somebody_elses_loop(tmp_path):
    """Bit for bit, of all bottlenecks, in a plain script that says nothing of codebooks."""
    first, second = together(2, "strangers", tmp_path)
    assert first.keys() == MEMBERS.keys()
    for name, found in first.items():
        assert same(found["state"], second[name]["state"]), name
        assert all(value.isfinite().all() for value in found["state"].values()), name
        assert ("codebook.share" not in found["state"]) or found["restarts"] > 0 or "convolution" in name, name


def distance(one, other):
    """Of two tensors, relative to the length of the first."""
    one, other = one.double(), other.double()
    return ((one - other).norm() / one.norm().clamp(min=1e-12)).item() if one.numel() else 0.0


def assert_alike(name, one, found):
    """The losses, the weights, the usage and the codes of one process, and the same bits in all of several."""
    steps, near = SAMPLED.get(name), 1e-3 if name in SAMPLED else 1e-5
    for each in found[1:]:
        assert same(found[0]["state"], each["state"]), name
    for step, (own, other) in enumerate(zip(one["terms"][:steps], found[0]["terms"][:steps], strict=True)):
        assert own == pytest.approx(other, rel=near, abs=1e-6), (name, step)
    if name not in SAMPLED:
        far = {key: distance(value, found[0]["state"][key]) for key, value in one["state"].items()}
        assert max(far.values()) < 2e-5, (name, far)
        assert same(
            *({key: value for key, value in each["extra"].items() if "usage" in key} for each in (one, found[0]))
        )
        assert torch.equal(one["codes"], found[0]["codes"]), name


def test_several_processes_train_as_one(image_folder, tokenizer, tmp_path):
    common = ("ours", tmp_path, image_folder, tokenizer)
    (one,) = together(1, *common, *QUICK, STEPS="8")
    for found in (together(2, *common, *QUICK, STEPS="8"), together(3, *common, *QUICK[:3], STEPS="8")):
        for name in found[0]:
            assert_alike(name, one[name], [each[name] for each in found])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_every_bottleneck_and_estimator_on_several_processes(count, image_folder, tokenizer, tmp_path):
    common = ("ours", tmp_path, image_folder, tokenizer)
    assert set(QUICK) <= set(experiments(image_folder, tokenizer))
    (one,), found = together(1, *common, STEPS="50"), together(count, *common, STEPS="50")
    for name, own in one.items():
        assert_alike(name, own, [each[name] for each in found])


# ------------------------------------------------------------------ the command line


OFTEN = {"batch_size": 12, "checkpoint_every": 4, "validate_every": 0, "sample_every": 0, "log_every": 4,
         "precision": "fp32"}  # fmt: skip


def arguments(data, out, steps=24, **options):
    small = {"image_size": 16, "width": 8, "codebook_size": 16}
    return [
        "train",
        "vqvae",
        "--data",
        str(data),
        "--out",
        str(out),
        *flags(**(OFTEN | {"steps": steps} | small | options)),
    ]


def flags(**options):
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def lines(said):
    return [line for text in said for line in text.splitlines() if line.startswith("smalti: ")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (lambda data, out: arguments(data, out, batch_size=5), "--batch_size 5 is of all 2 processes"),
        (lambda data, out: ["evaluate", str(out)], "evaluate runs in one process, not in 2: leave torchrun out"),
    ],
)
def test_a_refusal_is_said_once(words, told, image_folder, tmp_path):
    status, said = ended(command(2, *words(image_folder, tmp_path)))
    assert status == [1, 1] and len(lines(said)) == 1 and told in lines(said)[0]


def test_killed_it_goes_on_exactly_and_stopped_on_another_number_too(image_folder, tmp_path):
    """SIGKILL of one process at no particular step; SIGTERM, which leaves a checkpoint; then one process, or three."""
    assert ended(command(2, *arguments(image_folder, tmp_path / "whole")))[0] == [0, 0]
    for name, number, count in (("killed", signal.SIGKILL, 2), ("stopped", signal.SIGTERM, 1)):
        started = command(2, *arguments(image_folder, tmp_path / name))
        deadline = time.time() + 120
        while latest_checkpoint(tmp_path / name / "checkpoints") is None and time.time() < deadline:
            time.sleep(0.02)
        started[1].send_signal(number)
        status, said = ended(started)
        assert status == ([1, -signal.SIGKILL] if name == "killed" else [130, 130]), said
        assert len(lines(said)) == (name == "stopped")
        assert not (tmp_path / name / ".lock").exists()
        assert ended(command(count, *arguments(image_folder, tmp_path / name)))[0] == [0] * count
    whole, killed, stopped = (weights(tmp_path / name) for name in ("whole", "killed", "stopped"))
    assert same(whole, killed)
    assert max(distance(value, stopped[key]) for key, value in whole.items()) < 2e-5
    assert [record["step"] for record in read_metrics(tmp_path / "stopped" / "metrics.jsonl")] == [*range(4, 25, 4)]
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")) for name in
             ("whole", "killed", "stopped")]  # fmt: skip
    assert files[0] == files[1] == files[2]


BROKEN = """
from smalti import processes
from smalti.errors import SmaltiError
from smalti.training import tasks

before = tasks.AutoencoderTask.before_step


def broken(self, step):
    if step == 2 and processes.rank() == 1:
        raise SmaltiError("only the second process finds this")
    return before(self, step)


tasks.AutoencoderTask.before_step = broken
"""


def test_an_error_of_one_ends_all_with_one_line(image_folder, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    words = [*arguments(image_folder, tmp_path / "run"), "--code", str(tmp_path / "broken.py")]
    status, said = ended(command(2, *words))
    assert status == [1, 1] and lines(said) == ["smalti: only the second process finds this"]


def prior(data, tokenizer, out, steps, *more, network="transformer"):
    own = {"tokenizer": tokenizer, "data": data, "out": out, "steps": steps, "width": 8, "layers": 2, "heads": 2}
    return ["train", network, *flags(**(OFTEN | own | {"dropout": 0})), *more]


@pytest.mark.parametrize("counts", [(2, 1), pytest.param((1, 3), marks=pytest.mark.slow)])
def test_a_prior_in_parts_goes_on_whole_and_the_other_way_round(counts, image_folder, tokenizer, tmp_path):
    """Cut into two (FSDP2), then whole; whole, then cut into three: the losses of one process, and the same model."""
    for name, own in {"plain": (1, 1), "parts": counts}.items():
        for count, steps in zip(own, (8, 16), strict=True):
            words = prior(image_folder, tokenizer, tmp_path / name, steps, *(["--shard"] if count > 1 else []))
            status, said = ended(command(count, *words))
            assert status == [0] * count, said
        kept = sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir())
        suffix = ".safetensors" if own[1] == 1 else ""
        assert kept == [f"step-000000012{suffix}", f"step-000000016{suffix}"]
    plain, parts = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("plain", "parts"))
    assert [record["step"] for record in parts] == [4, 8, 12, 16]
    assert [record["loss"] for record in parts] == pytest.approx([record["loss"] for record in plain], rel=1e-5)
    far = [distance(value, weights(tmp_path / "parts")[key]) for key, value in weights(tmp_path / "plain").items()]
    assert max(far) < 2e-5
    assert not [*tmp_path.rglob("*.metadata"), *tmp_path.rglob("*.distcp")], "nothing is pickled"


def test_a_prior_learns_from_shards_in_several_processes_what_one_learns_from_images(image_folder, tokenizer, tmp_path):
    """Also where it goes on in the middle of a pass over the data."""
    smalti.tokenize(str(tokenizer), data=str(image_folder), out=str(tmp_path / "codes"), rows_per_shard=16, workers=1)
    for steps in (4, 8):
        for name, data, count in (("images", image_folder, 1), ("shards", tmp_path / "codes", 2)):
            status, said = ended(command(count, *prior(data, tokenizer, tmp_path / name, steps)))
            assert status == [0] * count, said
    of_images, of_shards = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("images", "shards"))
    assert [record["loss"] for record in of_shards] == pytest.approx([record["loss"] for record in of_images], rel=1e-5)
    ours = weights(tmp_path / "shards")
    assert max(distance(value, ours[key]) for key, value in weights(tmp_path / "images").items()) < 2e-5


@pytest.mark.parametrize(("count", "told"), [(1, "start them by torchrun"), (2, "shard True has no effect on")])
def test_parts_without_processes_or_of_an_autoencoder_are_refused(count, told, image_folder, tokenizer, tmp_path):
    words = prior(image_folder, tokenizer, tmp_path, 2) if count == 1 else arguments(image_folder, tmp_path)
    status, said = ended(command(count, *words, "--shard"))
    assert status == [1] * count and len(lines(said)) == 1 and told in lines(said)[0]
