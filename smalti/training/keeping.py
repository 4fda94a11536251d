"""Which model a run's folder holds: the last, or the best by validation with the last beside it; early ending."""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from smalti.configs import to_dict
from smalti.errors import SmaltiError
from smalti.files import BEST, read_json, write_json
from smalti.pretrained import Pretrained
from smalti.training.experiment import Training

LAST = "last"


class Keeper:
    """Writes the averaged model into its folder, and counts validations without a better loss.

    Args:
        run: the run's folder.
        experiment: with the settings that decide.
        card: writes a model card, given the model, the experiment, and `best` as in best.json.
        notes: of the checkpoint that the run goes on from.
    """

    def __init__(self, run: Path, experiment: Training, card: Callable[..., str] | None, notes: Mapping[str, Any]):
        self.run, self.experiment, self.card = run, experiment, card
        self.best, self.patience = experiment.run.keep == "best", experiment.run.patience
        self.step: int = notes.get("step", 0)  # of the best validation; 0 is none yet
        self.loss: float = notes.get("loss", math.inf)
        self.waited: int = notes.get("waited", 0)

    def notes(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"step": self.step, "loss": self.loss, "waited": self.waited}

    def observe(self, step: int, measured: Mapping[str, float]) -> bool:
        """Count a validation, if there was one; returns whether its loss is the best, and to be kept."""
        if not measured:
            return False
        better = measured["validation_loss"] < self.loss
        self.waited = 0 if better else self.waited + 1
        if better:
            self.step, self.loss = step, measured["validation_loss"]
        return better and self.best

    @property
    def over(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited

    def write_best(self, model: Pretrained) -> None:
        """Write the best model, and which step it is."""
        best = self._best
        model.save_pretrained(self.run, self.card(model, self.experiment, best=best) if self.card else None)
        write_json(self.run / BEST, best)

    @property
    def _best(self) -> dict[str, float]:
        return {"step": self.step, "validation_loss": self.loss}

    def write_last(self, model: Pretrained) -> None:
        """Write the last model; until there is a best one, in its place too."""
        card = self.card(model, self.experiment) if self.card else None
        if self.best:
            model.save_pretrained(self.run / LAST, card)
            write_json(self.run / LAST / "experiment.json", to_dict(self.experiment.placed(self.run / LAST)))
        if not self.best or not self.step:
            (self.run / BEST).unlink(missing_ok=True)
            model.save_pretrained(self.run, card)

    def mend(self, model: Pretrained, step: int) -> None:
        """Write what a run that has ended at `step` should hold and does not, for it was removed or damaged since."""
        last = self.run / LAST if self.best else self.run
        holders = (last,) if self.step or not self.best else (last, self.run)
        about: dict[Path, Any] = {}
        if not all(_holds(folder, model) for folder in holders):
            warnings.warn(f"{last} did not hold the model of step {step}; it is written anew", stacklevel=3)
            self.write_last(model)
        if self.best:
            about[last / "experiment.json"] = to_dict(self.experiment.placed(last))
        if self.best and self.step:
            self._mend_best(model, step)
            about[self.run / BEST] = self._best
        for path, value in about.items():
            if not path.is_file() or _read(path) != value:
                write_json(path, value)

    def _mend_best(self, model: Pretrained, step: int) -> None:
        if not _opens(self.run, type(model)):
            if step != self.step:
                how = f"train into another folder, or take that of step {step}, in {self.run / LAST}"
                raise SmaltiError(f"{self.run}: the model of step {self.step}, the best, is damaged or gone; {how}")
            self.write_best(model)

    def says(self, step: int, trained: bool) -> list[str]:
        """What there is to say when a run has ended at `step`, by this call or (not `trained`) by an earlier one."""
        lines = []
        if self.over:
            since = f"no better validation_loss than that of step {self.step} in {self.waited} validations"
            told = f"ended at step {step} of {self.experiment.run.steps}: {since}"
            lines.append(f"{self.run} {told}" + ("" if trained else "; it does not go on, choose another --out"))
        if self.best and self.step and trained:
            lines.append(f"{self.run} holds step {self.step}, the best: validation_loss {self.loss:.6g}; "
                         f"the last, step {step}, is in {self.run / LAST}")  # fmt: skip
        return lines


def _opens(folder: Path, kind: type[Pretrained]) -> Pretrained | None:
    """The model in a folder; None where there is none, or a damaged one."""
    try:
        return kind.from_pretrained(folder) if folder.is_dir() else None
    except SmaltiError:
        return None


def _holds(folder: Path, model: Pretrained) -> bool:
    """Whether a folder holds this model, undamaged."""
    found = _opens(folder, type(model))
    if found is None:
        return False
    tensors = found.state_dict()
    return all(torch.equal(tensors[name], value.cpu()) for name, value in model.state_dict().items())


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except SmaltiError:
        return None
