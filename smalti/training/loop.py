"""The only training loop."""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from smalti import processes
from smalti.configs import to_dict
from smalti.environment import environment
from smalti.errors import SmaltiError, cut
from smalti.files import PARTIAL, remove_partial, write_json
from smalti.ops.precision import arithmetic, resolved
from smalti.training.budget import Costs, TimeLeft, seconds_of, seconds_once
from smalti.training.compiling import compiling
from smalti.training.event_files import Hooks
from smalti.training.experiment import Experiment, PriorExperiment, Training
from smalti.training.hooks import StepHook
from smalti.training.keeping import LAST, Keeper
from smalti.training.lock import locked
from smalti.training.log import Log
from smalti.training.prior_task import PriorTask
from smalti.training.recording import Follower, Recorder
from smalti.training.resuming import EXPERIMENT, begin_with, check_data, resumed
from smalti.training.settings import RunSettings, Watched
from smalti.training.sharding import ShardedState
from smalti.training.state import Checkpoint, TrainState, newest_checkpoint
from smalti.training.stepping import Losses, Trainer, mixed
from smalti.training.stopping import Interrupted, stop_signal
from smalti.training.tasks import AutoencoderTask, Task

T = TypeVar("T", bound=Training)


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

    Processes that torchrun has started train one model together, each on its part of every batch; the first one alone
    writes, measures and speaks. A run may go on with another number of them.

    Args:
        experiment: the recipe's result.
        run: the folder; created if missing.
        start_from: a new run begins with the weights of the model in this folder, or owner/name on the hub.
        card: writes the model card, see `Keeper`.
        on_step: called after every step, before its checkpoint, of several processes in the first; what it raises ends
            the run, which can be resumed.
        progress: show a bar on stderr.
        started: when the run's minutes began, by `time.perf_counter`; by default now.

    Raises:
        SmaltiError: `run` is being trained, or holds a run with other settings or on other data; the data cannot be
            read; networks cannot be compiled; or a term is not finite.
        Interrupted: by Ctrl-C or SIGTERM, after writing a checkpoint.
    """
    run, started = Path(run), time.perf_counter() if started is None else started
    folders = (run, run / "checkpoints", run / "samples")
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.joined())
        processes.part_of(experiment.run.batch_size)
        device, first = _device(experiment.run), processes.is_first()
        hooks = Hooks(run, experiment.run, on_step)
        _make(*folders)
        stack.enter_context(locked(run))
        stack.callback(hooks.close)
        if first:
            remove_partial(*folders, run / LAST)
        checkpoint = newest_checkpoint(run / "checkpoints", in_parts=experiment.run.shard)
        begun = checkpoint is not None or (run / EXPERIMENT).exists()
        experiment = _precise(resumed(run, experiment, checkpoint, start_from), device)
        torch.manual_seed(mixed(experiment.run.seed, 0))
        task = _task(experiment, device, run, progress and first, checkpoint)
        if experiment.start and not checkpoint:
            begin_with(task.model, experiment.start)
        losses, precision = Losses(task), resolved(experiment.run.precision, device)
        if experiment.run.shard:
            state = ShardedState(losses, task.model, experiment.optimizer, precision)
        else:
            state = TrainState(task.model, experiment.optimizer, precision)
        if checkpoint:
            check_data(run, checkpoint, task.data)
            task.load(state.restore(checkpoint))
        notes: Mapping[str, Any] = checkpoint.record["notes"] if checkpoint else {}
        checkpoint, costs = None, None  # its tensors take memory
        trainer = Trainer(experiment, task, state, functools.partial(arithmetic, precision, device), losses)
        if experiment.run.compile and state.step < experiment.run.steps:
            _compile(trainer)
        if experiment.run.minutes is not None and not begun:
            costs = _fit(trainer, run, started)
        keeper = Keeper(run, trainer.experiment, card, notes.get("kept", {}))
        processes.any_of(False)  # all have read what there is
        state.gather()
        if first:
            _describe(run, trainer.experiment, device, task)
            state.keep_newest(run / "checkpoints")
            _lead(trainer, run, keeper, hooks, notes, costs, progress)
        else:
            _steps(trainer, Follower(trainer, run, keeper.over))
    return run


def _lead(
    trainer: Trainer,
    run: Path,
    keeper: Keeper,
    hooks: Hooks,
    notes: Mapping[str, Any],
    costs: Costs | None,
    progress: bool,
) -> None:
    """All steps that are left, recorded."""
    settings, start = trainer.experiment.run, trainer.state.step
    left, path = TimeLeft(settings, start, costs), run / "metrics.jsonl"
    log = Log(path, steps=settings.steps, start=start, progress=progress, notes=notes, left=left)
    with contextlib.closing(log.bar):
        _steps(trainer, Recorder(trainer, run, log, keeper, hooks))
    step = trainer.state.step
    if step == start:
        keeper.mend(trainer.state.averaged, step)
    for line in keeper.says(step, trained=step > start):
        log.say(line)


def _steps(trainer: Trainer, recorder: Follower) -> None:
    """All steps that are left, each with what is due after it."""
    with stop_signal() as stop:
        batches = trainer.task.batches(trainer.state.step)
        while not recorder.finished:
            done = trainer.step(batches, trainer.state.step)
            if recorder.after(done, stop) and not recorder.finished:
                where = f"step {trainer.state.step} of {trainer.experiment.run.steps}"
                raise Interrupted(f"stopped at {where}; the same command goes on from there")


def _compile(trainer: Trainer) -> None:
    """Compile the networks in a step that is undone, so that a failure leaves nothing, and none is measured with it."""
    print("compiling the networks", file=sys.stderr)
    state, task = trainer.state, trainer.task
    before = state.checkpoint(Path(), task.state(), {})
    with compiling(), contextlib.closing(task.batches(state.step)) as batches:  # pyright: ignore[reportArgumentType]
        task.compile()
        trainer.step(batches, state.step)
    task.load(state.restore(before))


def _fit(trainer: Trainer, run: Path, started: float) -> Costs:
    """Give a new run as many steps as fit into its minutes; returns what they cost.

    The first steps of each kind are done to measure them, also a validation, a picture and a checkpoint; then all is as
    it was before. Of several processes the first one's clock counts.
    """
    experiment, state, task = trainer.experiment, trainer.state, trainer.task
    settings, budget = experiment.run, 60 * (experiment.run.minutes or 0)
    path = run / "checkpoints" / f"{PARTIAL}measured{processes.rank()}.safetensors"
    before, steps = state.checkpoint(path, task.state(), {}), {}
    for part in task.phases:
        with contextlib.closing(task.batches(0)) as batches:  # pyright: ignore[reportArgumentType]
            one = functools.partial(trainer.step, batches, math.ceil(part * settings.steps))
            steps[part] = seconds_of(lambda one=one: one().terms["gradient_norm"].item(), budget)
    pauses: dict[Watched, Callable[[], object]] = {
        "validate": trainer.validate,
        "sample": lambda: task.picture(state.averaged),
    }
    if path.suffix == state.suffix:  # parts are as quick as they are small
        pauses["checkpoint"] = lambda: state.checkpoint(path, task.state(), {}).write()
    costs = Costs(steps=steps, pauses={name: seconds_once(do) for name, do in pauses.items() if settings.every(name)})
    path.unlink(missing_ok=True)
    task.load(state.restore(before))
    count = processes.told(costs.fitting(settings, started + budget - time.perf_counter()))
    task.experiment = trainer.experiment = experiment.lasting(count)
    told = f"{count:,} step{'s' * (count > 1)} in {settings.minutes:g} minutes"
    print(f"measured {costs}: {told}", file=sys.stderr)
    return costs


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
