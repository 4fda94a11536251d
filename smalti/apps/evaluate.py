"""The verb `evaluate`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from smalti.apps.runs import experiment_of, what_is
from smalti.configs import effective
from smalti.data.splits import Split
from smalti.files import CARD, write_json, write_text
from smalti.training.experiment import Experiment, PriorExperiment


def evaluate(
    run: str,
    data: str = "emoji",
    *,
    split: Split = "test",
    batch_size: int = 64,
    importance_samples: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure a model on a whole split; writes RUN/evaluation.json and the model card.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        data: emoji, a folder of images or of idx files, or *.parquet.
        split: train, validation, test or all.
        batch_size: images at a time; changes no number.
        importance_samples: of an autoencoder, draws per image for an estimate of -log p(x); 0 leaves it out.
        device: cpu, cuda, ...
    """
    if what_is(run) == "prior":
        effective(False, "on a prior", importance_samples=(importance_samples or None, 0))
        return _evaluate_prior(run, data, split, batch_size, device)
    from smalti.evaluation.autoencoders import evaluate as measure
    from smalti.models.autoencoder import Autoencoder
    from smalti.report.model_card import model_card

    model = Autoencoder.from_pretrained(run, device=device)
    result = measure(model, data, split, batch_size=batch_size, importance_samples=importance_samples, progress=True)
    _record(Path(run), result, lambda folder: model_card(model, experiment_of(folder, Experiment), result))
    return result


def _record(run: Path, result: dict[str, Any], card: Callable[[Path], str]) -> None:
    """Keep an evaluation in the run's folder; a model from the hub has none."""
    if run.is_dir():
        write_json(run / "evaluation.json", result)
        if (run / "experiment.json").exists():
            write_text(run / CARD, card(run))


def _evaluate_prior(run: str, data: str, split: Split, batch_size: int, device: str) -> dict[str, Any]:
    from smalti.evaluation.priors import evaluate_prior
    from smalti.priors.code_model import CodeModel
    from smalti.report.model_card import prior_card

    model = CodeModel.from_pretrained(run, device=device)
    cache = Path(run) if Path(run).is_dir() else None
    result = evaluate_prior(model, data, split, batch_size=batch_size, cache=cache, progress=True)
    _record(Path(run), result, lambda folder: prior_card(model, experiment_of(folder, PriorExperiment), result))
    return result
