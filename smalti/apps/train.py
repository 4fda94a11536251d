"""The verb `train`."""

from pathlib import Path
from typing import Any

from smalti.training.experiment import PriorExperiment, Training


def train(experiment: Training, out: Path) -> dict[str, Any]:
    """Train an autoencoder or a prior by a recipe; re-running resumes."""
    from smalti.report.model_card import model_card, prior_card
    from smalti.training.log import read_metrics
    from smalti.training.loop import train as run_training

    card = prior_card if isinstance(experiment, PriorExperiment) else model_card
    run_training(experiment, out, card=card, progress=True)
    last = read_metrics(out / "metrics.jsonl")[-1]
    return {"run": str(out), **last}
