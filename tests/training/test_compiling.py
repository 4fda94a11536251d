"""--compile: the same training, of networks that a compiler has seen, by a stub in place of PyTorch's slow one."""

import os
import signal

import pytest
import torch

from smalti.apps import cli
from smalti.errors import SmaltiError
from smalti.models.autoencoder import Autoencoder
from smalti.modes import evaluating
from smalti.recipes import RECIPES
from smalti.training import compiling
from smalti.training.budget import Costs
from smalti.training.log import read_metrics
from smalti.training.loop import Interrupted, train
from training.test_loop import same, small, weights, without_speed


@pytest.fixture
def graphs(monkeypatch):
    """What the stub was given to compile, and how often it has run."""
    seen, ran = [], []

    def backend(graph, inputs):
        seen.append(graph)

        def run(*given):
            ran.append(torch.is_grad_enabled())
            return graph(*given)

        return run

    monkeypatch.setattr(compiling, "BACKEND", backend)
    yield seen, ran
    torch.compiler.reset()


KINDS = {
    "vqvae": ("vqvae", {"precision": "bf16"}),
    "dvae": ("dvae", {"ema_decay": 0.0}),  # what is evaluated is the model itself
    "vqgan": ("vqgan", {"codebook_size": 16, "adversarial_weight": 0.1, "discriminator_width": 8}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_training_with_and_without(kind, graphs, image_folder, tmp_path):
    """Also resumed, with and without; what is validated, shown and saved is not compiled."""
    system, options = KINDS[kind]
    options = {"validate_every": 2, **options}
    recipe = {"vqgan": lambda **own: small_vqgan(image_folder, **own)}.get(system)

    def make(**own):
        return recipe(**options, **own) if recipe else small(system, image_folder, **options, **own)

    def stop(step):
        if step.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    train(make(), tmp_path / "plain", progress=False)
    seen, ran = graphs
    assert not seen
    train(make(compile=True), tmp_path / "compiled", progress=False)
    assert seen and len(ran) % 7 == 0 and all(ran)  # 6 steps and one before them, nothing else
    assert Autoencoder.from_pretrained(tmp_path / "compiled").encoder._compiled_call_impl is None
    with pytest.raises(Interrupted):
        train(make(compile=True), tmp_path / "stopped", progress=False, on_step=stop)
    train(make(), tmp_path / "stopped", progress=False)
    before, plain = without_speed(tmp_path / "compiled"), without_speed(tmp_path / "plain")
    for own, others, resumed in zip(before, plain, without_speed(tmp_path / "stopped"), strict=True):
        assert own == pytest.approx(others, rel=1e-3, abs=1e-3)
        assert resumed == pytest.approx(others, rel=1e-3, abs=1e-3)
    with pytest.raises(Interrupted):
        train(make(compile=True), tmp_path / "again", progress=False, on_step=stop)
    train(make(compile=True), tmp_path / "again", progress=False)
    assert same(weights(tmp_path / "again"), weights(tmp_path / "compiled"))
    assert without_speed(tmp_path / "again") == before


def small_vqgan(folder, **options):
    settings = {"batch_size": 4, "log_every": 2, "sample_every": 4, "checkpoint_every": 2, "steps": 6}
    run = {name: options.pop(name) for name in ("compile", "validate_every") if name in options}
    recipe = RECIPES["vqgan"](data=str(folder), image_size=16, width=8, warmup=2, **options)
    return recipe.with_settings(**settings, precision="fp32", **run)


def test_minutes_are_measured_after_it(graphs, image_folder, tmp_path, monkeypatch):
    from smalti.training import loop

    counts = []
    monkeypatch.setattr(loop, "seconds_of", lambda step, budget: counts.append(len(graphs[0])) or 0.1)
    monkeypatch.setattr(Costs, "fitting", lambda *_: 4)
    experiment = small("ae", image_folder, steps=2400, compile=True, minutes=0.01)
    run = train(experiment, tmp_path, progress=False)
    assert counts == [len(graphs[0])] and counts[0] >= 2  # before it all graphs, after it none
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 4


def test_what_cannot_be_compiled_leaves_nothing(image_folder, tmp_path, monkeypatch):
    def failing(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(compiling, "BACKEND", failing)
    message = r"--compile: PyTorch cannot compile the networks here \(No working C\+\+ .* found\); leave --compile out"
    with pytest.raises(SmaltiError, match=message):
        train(small("ae", image_folder, compile=True), tmp_path / "run", progress=False)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    train(small("ae", image_folder), tmp_path / "run", progress=False)
    torch.compiler.reset()


def test_a_copy_or_a_view_is_not_compiled(graphs):
    model = Autoencoder(small("ae", "emoji").model).train()
    model.encoder.compile(backend=compiling.BACKEND)
    assert evaluating(model).encoder._compiled_call_impl is None
    assert model.encoder._compiled_call_impl is not None


def test_a_prior_refuses(image_folder, tmp_path):
    run = train(small("vqvae", image_folder, steps=1), tmp_path / "vqvae", progress=False)
    prior = RECIPES["maskgit"](tokenizer=str(run), data=str(image_folder), width=8, layers=1, heads=2)
    with pytest.raises(SmaltiError, match="compile True has no effect on a prior.*; leave it out"):
        prior.with_settings(compile=True)


@pytest.mark.parametrize(("words", "value"), [([], False), (["--compile"], True), (["--compile", "false"], False)])
def test_the_flag_stands_alone(words, value, monkeypatch):
    given = {}

    def verb(experiment, out, **settings):
        """In place of `train`."""
        given.update(settings)

    monkeypatch.setitem(cli.VERBS, "train", verb)
    _, function, arguments, _ = cli._parse(["train", "ae", "--out", "x", *words])
    function(**arguments)
    assert given["compile"] is value
