"""The verb `evaluate`."""

from pathlib import Path
from typing import Any

from smalti.apps.runs import best_of, experiment_of, what_is
from smalti.configs import effective
from smalti.data.splits import Split
from smalti.files import CARD, write_json, write_text


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
        importance_samples: of an autoencoder, samples per image for an estimate of -log p(x); 0 leaves it out.
        device: cpu, cuda, ...
    """
    folder, is_prior = Path(run), what_is(run) == "prior"
    own = effective(not is_prior, "on a prior", importance_samples=(importance_samples or None, 0))
    if is_prior:
        from smalti.evaluation.priors import evaluate_prior
        from smalti.priors.code_model import CodeModel

        model, cache = CodeModel.from_pretrained(run, device=device), folder if folder.is_dir() else None
        result = evaluate_prior(model, data, split, batch_size=batch_size, cache=cache, progress=True)
    else:
        from smalti.evaluation.autoencoders import evaluate as measure
        from smalti.models.autoencoder import Autoencoder

        model = Autoencoder.from_pretrained(run, device=device)
        result = measure(model, data, split, batch_size=batch_size, progress=True, **own)
    if folder.is_dir():  # a model from the hub has none
        from smalti.reports.model_card import model_card

        write_json(folder / "evaluation.json", result)
        if experiment := experiment_of(folder):
            write_text(folder / CARD, model_card(model, experiment, result, best=best_of(folder)))
    return result
