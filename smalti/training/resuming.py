"""A run that is called again: what may have changed, and what is refused; and the model that a run begins with.

What decides the result must stay: all fields of the experiment but those marked as `smalti.configs.FREE`, and what is
in the data, wherever they are now.
"""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from smalti.configs import decisive, differences, from_dict, to_dict
from smalti.errors import SmaltiError, cut
from smalti.files import CARD, CONFIG, WEIGHTS, absolute_place, file_hash, read_json
from smalti.pretrained import Pretrained, check_whose, find_folder
from smalti.priors.code_model import CodeModel
from smalti.training.experiment import Start, Training
from smalti.training.state import Checkpoint

EXPERIMENT = "experiment.json"
LONGEST = 160  # characters of a difference in an error
T = TypeVar("T", bound=Training)


def resumed(run: Path, experiment: T, checkpoint: Checkpoint | None, start_from: str | None) -> T:
    """The experiment that a call trains: with the start and the history of the run that its folder holds.

    Args:
        run: the folder.
        experiment: as it is called now.
        checkpoint: that the run goes on from.
        start_from: the model that a new run begins with; a run that has a checkpoint does not need it any more.

    Raises:
        SmaltiError: the folder holds a run with other settings, or without a run what a training would write over.
    """
    values = _recorded(run, checkpoint)
    if values is None:
        start = _start(start_from, experiment, run)
        if foreign := [name for name in (CARD, CONFIG, WEIGHTS) if (run / name).exists()]:
            raise SmaltiError(f"{run} holds a {foreign[0]} that is of no run; choose another --out, or move it away")
        return replace(experiment, start=start)
    try:
        old = from_dict(type(experiment), values, str(run / EXPERIMENT))
    except SmaltiError:  # of another kind
        raise _refusal(run, differences(values, to_dict(experiment))) from None
    if old.start:
        old = replace(old, start=replace(old.start, model=absolute_place(old.start.model, run)))
    if experiment.run.minutes is not None:
        experiment = _begun(run, experiment, old)
    if experiment.run.precision == "auto":
        experiment = experiment.with_settings(precision=old.run.precision)
    known = old.start and experiment.start is None and (start_from is None or not Path(start_from).is_dir())
    start = old.start if known else _start(start_from, experiment, run)
    new = replace(experiment, start=start, history=old.history)
    if changed := differences(_deciding(old), _deciding(new)):
        raise _refusal(run, changed)
    if checkpoint is None:
        return new
    _check_origin(checkpoint, old)
    if new.run.steps < checkpoint.step:
        _say(f"{run}: {checkpoint.step} steps are done, more than --steps {new.run.steps}: nothing is left to do")
        new = replace(new, run=replace(new.run, steps=checkpoint.step))
    if new.run.steps == old.run.steps:
        return new
    if new.run.steps > checkpoint.step:
        way = f"from step {checkpoint.step} to {new.run.steps} instead of {old.run.steps}"
        _say(f"{run} goes on {way}; its schedules are now those of {new.run.steps} steps")
    return replace(new, history=(*old.history, {"done": checkpoint.step, "steps": old.run.steps}))


def _begun(run: Path, experiment: T, old: T) -> T:
    """The experiment with the steps that its minutes became when the run began."""
    if experiment.run.minutes != old.run.minutes:
        had = "" if old.run.minutes is None else f" of {old.run.minutes:g} minutes"
        remedy = "give the --steps that it should have, or choose another --out"
        raise SmaltiError(f"{run} holds a run{had} that has {old.run.steps} steps, whatever --minutes says; {remedy}")
    return experiment.lasting(old.run.steps)


def _deciding(experiment: Training) -> Mapping[str, Any]:
    run = experiment.run
    return {**decisive(experiment), "run": {**decisive(run), **run.by_validation}}


def _check_origin(checkpoint: Checkpoint, experiment: Training) -> None:
    """Refuse a checkpoint that was copied from a run with other settings than those of this folder."""
    values = checkpoint.record.get("experiment")
    if values is None:
        return
    try:
        changed = differences(
            _deciding(from_dict(type(experiment), values, str(checkpoint.path))), _deciding(experiment)
        )
    except SmaltiError:  # of another kind
        changed = differences(values, to_dict(experiment))
    if changed:
        raise SmaltiError(
            f"{checkpoint.path} is of another run: {cut(changed[0], LONGEST)}; remove it from this folder"
        )


def _recorded(run: Path, checkpoint: Checkpoint | None) -> Any:
    """The settings that a folder says, by experiment.json or where that is damaged by the checkpoint; None: no run."""
    path, of_checkpoint = run / EXPERIMENT, checkpoint and checkpoint.record.get("experiment")
    if not path.exists():
        return of_checkpoint
    try:
        values = read_json(path)
        if not isinstance(values, dict):
            raise SmaltiError(f"{path} is damaged: it holds no object")
        return values
    except SmaltiError as error:
        if not of_checkpoint:
            raise SmaltiError(f"{error}; remove it to begin anew, or choose another --out") from error
        warnings.warn(f"{error}; it is written anew", stacklevel=4)
        return of_checkpoint


def _refusal(run: Path, changed: list[str]) -> SmaltiError:
    what = cut(changed[0], LONGEST) + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
    remedy = f"choose another --out, perhaps with --from {run}, or repeat its command"
    return SmaltiError(f"{run} holds a run with other settings: {what}; {remedy}")


def check_data(run: Path, checkpoint: Checkpoint, now: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to go on with other data than those of the checkpoint.

    Args:
        run: the folder.
        checkpoint: that the run goes on from.
        now: "num_images" and "fingerprint" of each split that is used.

    Raises:
        SmaltiError: the images, their order, or what a prior is told of them are others.
    """
    for split, then in checkpoint.record.get("data", {}).items():
        if split not in now or then == now[split]:
            continue
        counts = then["num_images"], now[split]["num_images"]
        what = f"{counts[0]} images then, {counts[1]} now" if counts[0] != counts[1] else f"{counts[0]}, but others"
        remedy = f"bring back those that it began with, or choose another --out, perhaps with --from {run}"
        raise SmaltiError(f"{run}: the {split} data have changed: {what}; {remedy}")


def start_of(model: str, what: str = "autoencoder") -> Start:
    """What a training begins with.

    Args:
        model: its folder, a bundled name, or owner/name on the hub.
        what: the kind of model, "autoencoder" or "prior".

    Raises:
        SmaltiError: there is no model.
    """
    folder = find_folder(model, what)
    check_whose(folder, model)
    if not (folder / WEIGHTS).is_file():
        raise SmaltiError(f"--from {model}: there is no model in this folder; give one that `smalti train` made")
    place = str(folder.resolve()) if Path(model).is_dir() else model
    return Start(model=place, hash=file_hash(folder / WEIGHTS))


def _start(model: str | None, experiment: Training, run: Path) -> Start | None:
    """That of the model that is named, or the experiment's own."""
    start = experiment.start if model is None else start_of(model, experiment.what)
    if start and Path(start.model).resolve() == run.resolve():
        raise SmaltiError(f"--from {run} is --out itself, which the training writes over; choose another --out")
    return start


def begin_with(model: Pretrained, start: Start) -> None:
    """Give a new model the weights of another; what has no fitting ones there keeps its own, and a line says so.

    A module, such as a codebook with its statistics, takes all of its tensors or none.

    Raises:
        SmaltiError: no such model, another one than it was, one of another kind, or nothing of it fits.
    """
    source = type(model).from_pretrained(start.model)
    if source.source_hash != start.hash:
        raise SmaltiError(f"{start.model} is no longer the model {start.hash[:12]} that this run began with")
    theirs, ours = source.state_dict(), model.state_dict()
    why = {name: _unlike(value.shape, theirs.get(name)) for name, value in ours.items()}
    anew = {_owner(name) for name, reason in why.items() if reason}
    taken = {name: theirs[name] for name in ours if _owner(name) not in anew}
    if not any(theirs[name].numel() > 1 for name in taken):
        name, reason = next(((name, reason) for name, reason in why.items() if reason), ("", ""))
        raise SmaltiError(f"nothing of {start.model} fits this model: {name} {reason}; give a more similar one")
    model.load_state_dict(taken, strict=False)
    for name in ours:
        if _owner(name) in anew:
            _say(f"{name} {why[name] or 'belongs to it'}: starts anew")
    for name in theirs:
        if name not in ours:
            _say(f"{name} of {start.model} has no place in this model: left out")
    if isinstance(source, CodeModel) and isinstance(model, CodeModel):
        for what in source.config.unlike(model.config):
            _say(f"{start.model} was trained with {what}: what it knows of them does not hold here")


def _unlike(shape: Any, found: Any) -> str:
    """Why a tensor cannot be taken; "" where it can."""
    if found is None:
        return f"{tuple(shape)} is not there"
    return "" if found.shape == shape else f"{tuple(found.shape)} instead of {tuple(shape)}"


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _say(text: str) -> None:
    print(text, file=sys.stderr)
