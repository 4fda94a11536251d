"""What is called after every step: a user's hook, and event files for TensorBoard of a run's lines and pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from smalti.errors import SmaltiError
from smalti.training.hooks import Step, StepHook
from smalti.training.settings import RunSettings


class EventFiles:
    """A hook that writes the numbers of metrics.jsonl under their names, and the pictures as "samples".

    Args:
        folder: for the event files. A run that goes on adds a file, which says that events of the steps that it repeats
            are void.

    Raises:
        SmaltiError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SmaltiError("--log tensorboard needs TensorBoard: pip install 'smalti[track]'") from error
        self.make, self.folder = SummaryWriter, folder
        self.writer: Any = None

    def __call__(self, step: Step) -> None:
        """Write what there is of a step."""
        if self.writer is None:
            self.writer = self.make(str(self.folder), purge_step=step.step)
        for name, value in (step.record or {}).items():
            self.writer.add_scalar(name, value, step.step)
        if step.picture is not None:
            self.writer.add_image("samples", np.asarray(step.picture.convert("RGB")), step.step, dataformats="HWC")
        if step.record or step.picture:
            self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


class Hooks:
    """All hooks of a run.

    Args:
        run: its folder.
        settings: say whether there are event files.
        own: the user's, if there is one.

    Raises:
        SmaltiError: event files are wanted, and TensorBoard is not installed.
    """

    def __init__(self, run: Path, settings: RunSettings, own: StepHook | None):
        self.events = EventFiles(run / "tensorboard") if settings.log == "tensorboard" else None
        self.all = [hook for hook in (self.events, own) if hook is not None]

    def __call__(self, step: Step) -> None:
        """Call them; what one of them raises ends the run."""
        for hook in self.all:
            hook(step)

    def close(self) -> None:
        """Close the event files."""
        if self.events is not None:
            self.events.close()
