"""What follows a step: the log, validations, pictures, hooks, checkpoints; of several processes by the first alone."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smalti import processes
from smalti.configs import to_dict
from smalti.files import atomic_path
from smalti.training.budget import Clock
from smalti.training.event_files import Hooks
from smalti.training.hooks import Step
from smalti.training.keeping import Keeper
from smalti.training.log import Log
from smalti.training.settings import RunSettings, Watched
from smalti.training.stepping import Done, Trainer


def due(every: int, step: int, finished: bool) -> bool:
    """Whether something that happens every so many steps (0 is never), and at the last one, happens now."""
    return every > 0 and (finished or step % every == 0)


class Follower:
    """What the other processes do after a step: their part of what the first one records."""

    def __init__(self, trainer: Trainer, run: Path, over: bool):
        self.trainer, self.run, self.over = trainer, run, over  # whether the run ends before its last step

    @property
    def settings(self) -> RunSettings:
        """Of the run."""
        return self.trainer.experiment.run

    @property
    def finished(self) -> bool:
        """Whether there are no more steps to do."""
        return self.over or self.trainer.state.step >= self.settings.steps

    def after(self, done: Done, stop: threading.Event) -> bool:
        """After every step; whether the run stops here, because any process has been told to."""
        self._gather()
        if self._is_due("validate"):
            self.over = processes.told(self.over)
        stops = processes.any_of(stop.is_set())
        if stops or self._is_due("checkpoint"):
            self.trainer.state.gather()
            self.trainer.state.save(self.run / "checkpoints", self.trainer.task.state(), {})
        return stops

    def _is_due(self, what: Watched) -> bool:
        return due(self.settings.every(what), self.trainer.state.step, self.finished)

    def _gather(self) -> None:
        """Before anything is made of the averaged model."""
        if self._is_due("validate") or self._is_due("sample"):
            self.trainer.state.gather()


class Recorder(Follower):
    """What the first process does, or the only one.

    The models that a checkpoint knows of are written before it: a run that is killed in between makes them again.
    """

    def __init__(self, trainer: Trainer, run: Path, log: Log, keeper: Keeper, hooks: Hooks):
        super().__init__(trainer, run, keeper.over)
        self.log, self.keeper, self.hooks = log, keeper, hooks
        self.clock = Clock(trainer.state.step)

    def after(self, done: Done, stop: threading.Event) -> bool:
        """The line of the log, the validation, the picture, the hooks, and the checkpoint that are due."""
        task, state, settings = self.trainer.task, self.trainer.state, self.settings
        self._gather()
        self.log.add(state.step, done.terms)
        if done.alarm:
            self.log.say(f"step {state.step}: {done.alarm}")
        seconds = self.clock.seconds
        measured, record, picture = {}, None, None
        validated = self._is_due("validate")
        if validated:
            measured = self.trainer.validate()
        best = self.keeper.observe(state.step, measured)
        self.over = self.keeper.over
        if validated:
            processes.told(self.over)
        if measured or self._is_due("log"):
            batch = settings.batch_size * self.trainer.experiment.optimizer.accumulate
            speed = {"images_per_second": (state.step - self.clock.step) * batch / max(seconds, 1e-9)}
            more = {**task.report(), **measured, **speed, "images": state.step * batch}
            record = self.log.write(state.step, {**done.scheduled, **more})
            self.clock = Clock(state.step)
        if best:
            self.keeper.write_best(state.averaged)
        if self._is_due("sample"):
            picture = task.picture(state.averaged)
            with atomic_path(self.run / "samples" / f"step-{state.step:09d}.png") as path:
                picture.save(path)
        self.hooks(Step(state.step, done.terms, state.averaged, record, picture))
        stops = processes.any_of(stop.is_set())
        if stops or self._is_due("checkpoint"):
            self.trainer.state.gather()
            self._checkpoint()
        return stops

    def _checkpoint(self) -> None:
        notes: Mapping[str, Any] = {**self.log.notes(), "kept": self.keeper.notes()}
        self.keeper.write_last(self.trainer.state.averaged)
        experiment = to_dict(self.trainer.experiment.placed(self.run))
        about = {"notes": notes, "data": self.trainer.task.data, "experiment": experiment}
        self.trainer.state.save(self.run / "checkpoints", self.trainer.task.state(), about)
