"""The only training loop."""

import contextlib
import functools
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from smalti.configs import to_dict
from smalti.environment import environment
from smalti.errors import SmaltiError, cut
from smalti.files import PARTIAL, atomic_path, remove_partial, write_json
from smalti.modes import using
from smalti.ops.precision import arithmetic, resolved
from smalti.training.budget import Costs, TimeLeft, seconds_of, seconds_once
from smalti.training.compiling import compiling
from smalti.training.event_files import Hooks
from smalti.training.experiment import Experiment, PriorExperiment, Training
from smalti.training.hooks import Step, StepHook
from smalti.training.keeping import LAST, Keeper
from smalti.training.lock import locked
from smalti.training.log import Log
from smalti.training.prior_task import PriorTask
from smalti.training.resuming import EXPERIMENT, begin_with, check_data, resumed
from smalti.training.settings import RunSettings, Watched
from smalti.training.state import Checkpoint, TrainState, keep_newest, newest_checkpoint
from smalti.training.tasks import AutoencoderTask, Task

VALIDATION_SEED = 0  # of whatever is random in a validation
T = TypeVar("T", bound=Training)


class Interrupted(KeyboardInterrupt):
    """Interrupted by a signal, after writing a checkpoint; the same command resumes the run."""


def train(
    experiment: Training,
    run: Path | str,
    *,
    start_from: str | None = None,
    card: Callable[..., str] | None = None,
    on_step: StepHook | None = None,
    progress: bool = True,
    started: float | None = None,
) -> Path:
    """Train `experiment` into the folder `run`; resume if an earlier call was interrupted.

    The run is exactly resumable: stopped at any step or killed at any moment and called again, it ends with the same
    bits as an uninterrupted one (same machine, same number of threads). Returns the folder.

    Args:
        experiment: the recipe's result.
        run: the folder; created if missing.
        start_from: a new run begins with the weights of the model in this folder, or owner/name on the hub.
        card: writes the model card, see `Keeper`.
        on_step: called after every step, before its checkpoint; what it raises ends the run, which can be resumed.
        progress: show a bar on stderr.
        started: when the run's minutes began, by `time.perf_counter`; by default now.

    Raises:
        SmaltiError: `run` is being trained, or holds a run with other settings or on other data; the data cannot be
            read; networks cannot be compiled; or a term is not finite.
        Interrupted: by Ctrl-C or SIGTERM, after writing a checkpoint.
    """
    run, started = Path(run), time.perf_counter() if started is None else started
    device = _device(experiment.run)
    hooks = Hooks(run, experiment.run, on_step)
    folders = (run, run / "checkpoints", run / "samples")
    _make(*folders)
    with locked(run), contextlib.closing(hooks):
        remove_partial(*folders, run / LAST)
        checkpoint = newest_checkpoint(run / "checkpoints")
        begun = checkpoint is not None or (run / EXPERIMENT).exists()
        experiment = _precise(resumed(run, experiment, checkpoint, start_from), device)
        autocast = functools.partial(arithmetic, experiment.run.precision, device)
        torch.manual_seed(_mix(experiment.run.seed, 0))
        task = _task(experiment, device, run, progress, checkpoint)
        if experiment.start and not checkpoint:
            begin_with(task.model, experiment.start)
        state = TrainState(task.model, experiment.optimizer, resolved(experiment.run.precision, device))
        if checkpoint:
            check_data(run, checkpoint, task.data)
            task.load(state.restore(checkpoint))
            keep_newest(run / "checkpoints", state.step)
        notes: Mapping[str, Any] = checkpoint.record["notes"] if checkpoint else {}
        checkpoint, costs = None, None  # its tensors take memory
        if experiment.run.compile and state.step < experiment.run.steps:
            _compile(experiment, task, state, autocast)
        if experiment.run.minutes is not None and not begun:
            experiment, costs = _fitted(experiment, run, task, state, autocast, started)
        _describe(run, experiment, device, task)
        left, path = TimeLeft(experiment.run, state.step, costs), run / "metrics.jsonl"
        log = Log(path, steps=experiment.run.steps, start=state.step, progress=progress, notes=notes, left=left)
        keeper = Keeper(run, experiment, card, notes.get("kept", {}))
        start = state.step
        with contextlib.closing(log.bar):
            _steps(experiment, run, task, state, log, keeper, hooks, autocast)
        if state.step == start:
            keeper.mend(state.averaged, state.step)
    for line in keeper.says(state.step, trained=state.step > start):
        log.say(line)
    return run


def _steps(
    experiment: Training,
    run: Path,
    task: Task[Any],
    state: TrainState,
    log: Log,
    keeper: Keeper,
    hooks: Hooks,
    autocast: Callable[[], torch.autocast],
) -> None:
    """All steps that are left, each with what is due after it.

    The models that a checkpoint knows of are written before it: a run that is killed in between makes them again.
    """
    settings, clock_step = experiment.run, state.step
    images_per_step = settings.batch_size * experiment.optimizer.accumulate
    with _stop_signal() as stop:
        clock, batches = time.perf_counter(), task.batches(state.step)
        while state.step < settings.steps and not keeper.over:
            scheduled, terms, alarm = _step(experiment, task, state, batches, state.step, autocast)
            log.add(state.step, terms)
            if alarm:
                log.say(f"step {state.step}: {alarm}")

            seconds, finished = time.perf_counter() - clock, state.step == settings.steps
            measured, record, picture = {}, None, None
            if _due(settings.every("validate"), state.step, finished):
                measured = _validate(task, state.averaged, autocast)
            best = keeper.observe(state.step, measured)
            finished = finished or keeper.over
            if measured or _due(settings.every("log"), state.step, finished):
                speed = {"images_per_second": (state.step - clock_step) * images_per_step / max(seconds, 1e-9)}
                more = {**task.report(), **measured, **speed, "images": state.step * images_per_step}
                record = log.write(state.step, {**scheduled, **more})
                clock, clock_step = time.perf_counter(), state.step
            if best:
                keeper.write_best(state.averaged)
            if _due(settings.every("sample"), state.step, finished):
                picture = task.picture(state.averaged)
                with atomic_path(run / "samples" / f"step-{state.step:09d}.png") as path:
                    picture.save(path)
            hooks(Step(state.step, terms, state.averaged, record, picture))
            if stop.is_set() or _due(settings.every("checkpoint"), state.step, finished):
                notes = {**log.notes(), "kept": keeper.notes()}
                keeper.write_last(state.averaged)
                about = {"notes": notes, "data": task.data, "experiment": to_dict(experiment.placed(run))}
                state.save(run / "checkpoints", task.state(), about)
            if stop.is_set() and not finished:
                where = f"step {state.step} of {settings.steps}"
                raise Interrupted(f"stopped at {where}; the same command goes on from there")


def _due(every: int, step: int, finished: bool) -> bool:
    """Whether something that happens every so many steps (0 is never), and at the last one, happens now."""
    return every > 0 and (finished or step % every == 0)


def _step(
    experiment: Training,
    task: Task[Any],
    state: TrainState,
    batches: Iterator[torch.Tensor],
    step: int,
    autocast: Callable[[], torch.autocast],
) -> tuple[dict[str, float], dict[str, torch.Tensor], str | None]:
    """One optimiser step, the one that schedules take for number `step`: what was scheduled, terms, and any alarm."""
    settings, optimizer = experiment.run, experiment.optimizer
    torch.manual_seed(_mix(settings.seed, step + 1))
    scheduled = {"learning_rate": optimizer.schedule(step, settings.steps), **task.before_step(step)}
    terms = _gradients(task, batches, step, optimizer.accumulate, autocast)
    terms["gradient_norm"] = state.optimizer_step(scheduled["learning_rate"])
    alarm = task.after_step()
    state.finish_step()
    return scheduled, terms, alarm


def _compile(experiment: Training, task: Task[Any], state: TrainState, autocast: Callable[[], torch.autocast]) -> None:
    """Compile the networks in a step that is undone, so that a failure leaves nothing, and none is measured with it."""
    print("compiling the networks", file=sys.stderr)
    before = state.checkpoint(Path(), task.state(), {})
    with compiling(), contextlib.closing(task.batches(state.step)) as batches:  # pyright: ignore[reportArgumentType]
        task.compile()
        _step(experiment, task, state, batches, state.step, autocast)
    task.load(state.restore(before))


def _fitted(
    experiment: T,
    run: Path,
    task: Task[Any],
    state: TrainState,
    autocast: Callable[[], torch.autocast],
    started: float,
) -> tuple[T, Costs]:
    """A new run with as many steps as fit into its minutes, and what they cost.

    The first steps of each kind are done to measure them, also a validation, a picture and a checkpoint; then all is as
    it was before.
    """
    settings, budget = experiment.run, 60 * (experiment.run.minutes or 0)
    path = run / "checkpoints" / f"{PARTIAL}measured.safetensors"
    before, steps = state.checkpoint(path, task.state(), {}), {}
    for part in task.phases:
        with contextlib.closing(task.batches(0)) as batches:  # pyright: ignore[reportArgumentType]
            one = functools.partial(_step, experiment, task, state, batches, math.ceil(part * settings.steps), autocast)
            steps[part] = seconds_of(lambda one=one: one()[1]["gradient_norm"].item(), budget)
    pauses: dict[Watched, Callable[[], object]] = {
        "validate": lambda: _validate(task, state.averaged, autocast),
        "sample": lambda: task.picture(state.averaged),
        "checkpoint": lambda: state.checkpoint(path, task.state(), {}).write(),
    }
    costs = Costs(steps=steps, pauses={name: seconds_once(do) for name, do in pauses.items() if settings.every(name)})
    path.unlink()
    task.load(state.restore(before))
    fitted = experiment.lasting(costs.fitting(settings, started + budget - time.perf_counter()))
    task.experiment = fitted
    told = f"{fitted.run.steps:,} step{'s' * (fitted.run.steps > 1)} in {settings.minutes:g} minutes"
    print(f"measured {costs}: {told}", file=sys.stderr)
    return fitted, costs


def _gradients(
    task: Task[Any], batches: Iterator[torch.Tensor], step: int, accumulate: int, autocast: Callable[[], torch.autocast]
) -> dict[str, torch.Tensor]:
    """Accumulate the gradient of some batches; returns the terms of their mean loss."""
    terms: dict[str, torch.Tensor] = {}
    for _ in range(accumulate):
        with autocast():
            loss = task.loss(next(batches), step)
        (loss.total / accumulate).backward()
        for name, value in loss.terms.items():
            terms[name] = terms.get(name, 0) + value / accumulate
    return terms


def _validate(task: Task[Any], model: Any, autocast: Callable[[], torch.autocast]) -> dict[str, float]:
    """What the task finds on what is held out, "validation_" before the names; off the training's random numbers."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), using(model) as still, autocast():
        torch.manual_seed(VALIDATION_SEED)
        return {f"validation_{name}": value for name, value in task.validate(still).items()}


def _task(
    experiment: Training, device: str, run: Path, progress: bool, checkpoint: Checkpoint | None = None
) -> Task[Any]:
    """The task of an experiment, with a new model."""
    if isinstance(experiment, Experiment):
        return AutoencoderTask(experiment, device, progress)
    assert isinstance(experiment, PriorExperiment)
    return PriorTask(experiment, device, run, progress, resumes=checkpoint is not None)


def _device(settings: RunSettings) -> str:
    """The device's name."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SmaltiError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _precise(experiment: T, device: str) -> T:
    """The experiment with the precision that "auto" is here, which is then the run's own on other machines too."""
    run, precision = experiment.run, resolved(experiment.run.precision, device)
    if run.precision != precision == "bf16":
        print("bf16: networks compute in bfloat16, which is faster here; --precision fp32 does not", file=sys.stderr)
    return replace(experiment, run=replace(run, precision=precision))


def _mix(seed: int, step: int) -> int:
    """A seed for torch's generator: a hash of (seed, step)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _make(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot write to {cut(str(folder), 160)}: {error.strerror}"
            raise SmaltiError(f"{what}; choose another --out") from error


def _describe(run: Path, experiment: Training, device: str, task: Task[Any]) -> None:
    """Write experiment.json and environment.json, after everything could be built."""
    where = {
        **environment(device),
        "precision": experiment.run.precision,
        "command": sys.argv,
        "data": task.data,
    }
    write_json(run / EXPERIMENT, to_dict(experiment.placed(run)))
    write_json(run / "environment.json", where)


@contextlib.contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event set by Ctrl-C and SIGTERM, so that a step is always finished; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
