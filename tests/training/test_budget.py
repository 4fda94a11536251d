"""A budget of minutes: as many steps as fit, the run that so many steps are, and a time left that is right."""

import inspect
import itertools
import math
import os
import re
import signal

import pytest

import smalti
from smalti.apps.cli import VERBS, _settings_of
from smalti.errors import SmaltiError
from smalti.files import read_json
from smalti.recipes import RECIPES
from smalti.training.budget import Costs, TimeLeft, seconds_of
from smalti.training.loop import Interrupted, train
from smalti.training.recording import due
from smalti.training.settings import RunSettings
from training.test_loop import SYSTEMS, same, small, weights, without_speed

PLANS = [
    Costs(steps={0.0: 0.05}),
    Costs(steps={0.0: 0.05}, pauses={"validate": 3.0, "sample": 1.0, "checkpoint": 0.5}),
    Costs(steps={0.0: 0.05, 0.5: 0.15}, pauses={"validate": 2.0, "checkpoint": 0.2}),
    Costs(steps={0.0: 4.0, 0.25: 3.0}, pauses={"sample": 9.0}),
]


def moments(costs, run):
    """Seconds when each step has ended, before what is due after it; and when the run has: one by one."""
    now, ends = 0.0, []
    for step in range(run.steps):
        now += costs.steps[max(part for part in costs.steps if step >= part * run.steps)]
        ends.append(now)
        now += sum(cost for name, cost in costs.pauses.items() if due(run.every(name), step + 1, step + 1 == run.steps))
    return ends, now


@pytest.mark.parametrize("costs", PLANS, ids=str)
@pytest.mark.parametrize("settings", [{}, {"validate_every": 7}, {"sample_every": 0, "checkpoint_every": 1}], ids=str)
@pytest.mark.parametrize("steps", [1, 9, 64, 501])
def test_costs_are_those_of_the_steps_one_by_one(costs, settings, steps):
    run = RunSettings(steps=steps, **settings)
    ends, total = moments(costs, run)
    assert [costs.before(run, done) for done in range(1, steps + 1)] == pytest.approx(ends)
    assert costs.total(run) == pytest.approx(total)


@pytest.mark.parametrize("costs", PLANS, ids=str)
@pytest.mark.parametrize("minutes", [0.5, 3, 60])
def test_as_many_steps_as_fit(costs, minutes):
    run = RunSettings()
    steps = costs.fitting(run, 60 * minutes)
    taken = moments(costs, RunSettings(steps=steps))[1]
    assert steps == 1 or 60 * minutes * 0.9 - 25 < taken < 60 * minutes + 1e-6
    assert costs.fitting(run, -1.0) == 1


@pytest.mark.parametrize("costs", PLANS[:3], ids=str)
@pytest.mark.parametrize("speed", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("start", [0, 600])
def test_the_time_left_is_right_within_a_tenth(costs, speed, start):
    """Also on a machine that turns out faster or slower than it was measured, from a tenth of the way on."""
    run = RunSettings(steps=2000)
    left, (ends, total) = TimeLeft(run, start, costs), moments(costs, run)
    begin = ends[start - 1] if start else 0.0
    for done in range(start + (run.steps - start) // 10, run.steps):
        told = left(done, speed * (ends[done - 1] - begin))
        assert told == pytest.approx(speed * (total - ends[done - 1]), rel=0.1)


def test_without_costs_the_time_left_goes_by_the_mean():
    run, left = RunSettings(steps=1000), TimeLeft(RunSettings(steps=1000), 0)
    ends, total = moments(Costs(steps={0.0: 0.05}, pauses={"validate": 0.3, "checkpoint": 0.1}), run)
    assert math.isnan(left(0, 0.0))
    for done in range(300, 900):
        assert left(done, ends[done - 1]) == pytest.approx(total - ends[done - 1], rel=0.1)


def test_a_step_is_measured_without_the_first(monkeypatch):
    """By a clock of its own: two slow steps, then 0.25 s each; many for a long budget, one for a very short one."""
    from smalti.training import budget

    def counted(seconds):
        clock, costs, done = [0.0], itertools.chain([9.0, 9.0], itertools.repeat(0.25)), []
        monkeypatch.setattr(budget.time, "perf_counter", lambda: clock[0])

        def step():
            clock[0] += next(costs)
            done.append(1)

        assert seconds_of(step, seconds) == 0.25
        return len(done) - 2

    assert [counted(seconds) for seconds in (3600.0, 180.0, 40.0, 10.0, 0.1)] == [80, 22, 8, 4, 1]


TINY = {"warmup": 3, "learning_rate": 1e-3}
PRIOR = {"width": 8, "layers": 1, "heads": 2, **TINY}
KINDS = {
    **{name: {"image_size": 16, "width": 8, **own, **TINY} for name, own in SYSTEMS.items()},
    "vqgan": {"image_size": 16, "width": 8, "adversarial_weight": 0.1, "discriminator_width": 8, **TINY},
    "transformer": {**PRIOR, "label": "class"},
    "maskgit": PRIOR,
}


def experiment(kind, data, tokenizer, **length):
    """A small training, with its length."""
    recipe = RECIPES.get(kind, RECIPES["vqvae"])
    of = {"tokenizer": str(tokenizer)} if "tokenizer" in inspect.signature(recipe).parameters else {}
    return recipe(data=str(data), **of, **KINDS[kind]).with_settings(batch_size=4, device="cpu", **length)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, image_folder):
    return train(small("vqvae", image_folder, steps=1), tmp_path_factory.mktemp("run") / "vqvae", progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_minutes_is_the_run_of_its_steps(kind, image_folder, tokenizer, tmp_path, monkeypatch, capsys):
    """Bit for bit: measuring leaves no trace. Stopped, the same command goes on."""

    def go(name, on_step=None, **length):
        train(experiment(kind, image_folder, tokenizer, **length), tmp_path / name, progress=False, on_step=on_step)
        return capsys.readouterr().err

    def stop(step):
        if step.step == 12:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Costs, "fitting", lambda *_: 30)
    assert "measured" not in go("steps", steps=30)
    told = go("minutes", minutes=0.001)
    assert re.search(r"measured [\d.,e+]+ ms a step.*: 30 steps in 0.001 minutes", told)
    assert ("ms a step from 50% of the run on" in told) == (kind == "vqgan")
    with pytest.raises(Interrupted):
        go("stopped", stop, minutes=0.001)
    assert "measured" in capsys.readouterr().err
    monkeypatch.setattr(Costs, "fitting", lambda *_: 1)
    assert go("stopped", minutes=0.001) == ""
    for name in ("minutes", "stopped"):
        assert same(weights(tmp_path / "steps"), weights(tmp_path / name))
        assert without_speed(tmp_path / "steps") == without_speed(tmp_path / name)
        settings = read_json(tmp_path / name / "experiment.json")["run"]
        assert (settings["steps"], settings["minutes"]) == (30, 0.001)
        assert not [*(tmp_path / name / "checkpoints").glob(".*")]


def test_a_run_that_has_begun_has_its_steps(image_folder, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(Costs, "fitting", lambda *_: 20)

    def go(name, **length):
        run = train(experiment("ae", image_folder, tokenizer, **length), tmp_path / name, progress=False)
        return read_json(run / "experiment.json")

    written = go("run", minutes=0.001)
    assert (written["run"]["steps"], written["optimizer"]["warmup"]) == (20, 2)  # a tenth of the run
    with pytest.raises(SmaltiError, match="run holds a run of 0.001 minutes that has 20 steps, whatever --min"):
        go("run", minutes=0.002)
    go("other", steps=60)
    with pytest.raises(SmaltiError, match="other holds a run that has 60 steps, whatever .*; give the --steps"):
        go("other", minutes=0.001)


def test_minutes_are_in_place_of_steps():
    with pytest.raises(SmaltiError, match=r"steps 5 has no effect with minutes 3.0, which decide it; leave it out"):
        RECIPES["ae"](minutes=3.0).with_settings(steps=5)
    with pytest.raises(SmaltiError, match=r"steps 5 has no effect with minutes 3"):
        RECIPES["mlp_vae"]().with_settings(steps=5, minutes=3)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SmaltiError, match="minutes must be positive, not"):
            RunSettings(minutes=wrong)


def test_every_recipe_takes_minutes_and_no_verb_with_steps_of_its_own():
    for name, recipe in RECIPES.items():
        parameters = [*inspect.signature(recipe).parameters]
        own = "minutes" in parameters
        assert own != ("minutes" in _settings_of(recipe, parameters)), name
        if own and "tokenizer" not in inspect.signature(recipe).parameters:
            assert recipe(minutes=2.5).run.minutes == 2.5
    assert not [name for name in smalti.VERBS if "steps" in inspect.signature(VERBS[name]).parameters
                and "minutes" in _settings_of(VERBS[name], [*inspect.signature(VERBS[name]).parameters])]  # fmt: skip


def test_what_is_watched_follows_the_number_of_steps():
    run = RunSettings(steps=20_000)
    assert [run.every(what) for what in ("log", "sample", "checkpoint", "validate")] == [400, 4000, 2000, 2000]
    run = RunSettings(steps=300)  # a short run does not spend its time on being watched
    assert [run.every(what) for what in ("log", "sample", "checkpoint", "validate")] == [10, 100, 50, 50]
    assert RunSettings(sample_every=0).every("sample") == 0
