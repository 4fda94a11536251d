"""The verb `train`."""

from pathlib import Path
from typing import Any

from smalti.training.experiment import Training
from smalti.training.hooks import StepHook


def train(experiment: Training, out: Path | str, *, on_step: StepHook | None = None, **settings: Any) -> dict[str, Any]:
    """Train an autoencoder or a prior by a recipe; re-running resumes.

    Args:
        experiment: what a recipe gives.
        out: the run's folder.
        on_step: from Python only: called after every step with a `smalti.training.hooks.Step`.
        **settings: of the run, see `RunSettings`; the others stay the experiment's own.
    """
    from smalti.reports.model_card import model_card
    from smalti.training.log import read_metrics
    from smalti.training.loop import train as run_training

    run = run_training(experiment.with_settings(**settings), out, card=model_card, on_step=on_step, progress=True)
    return {"run": str(out), **read_metrics(run / "metrics.jsonl")[-1]}
