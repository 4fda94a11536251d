"""The verb `evaluate`."""

from pathlib import Path
from typing import Any

from smalti.apps.runs import data_of, experiment_of, what_is
from smalti.configs import effective
from smalti.data.splits import Split
from smalti.files import CARD, write_json, write_text


def evaluate(
    run: str,
    data: str | None = None,
    *,
    split: Split = "test",
    batch_size: int = 64,
    importance_samples: int = 0,
    distances: str | None = None,
    samples: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure a model on a whole split; writes RUN/evaluation.json and the model card.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        data: emoji, a folder of images or of idx files, or *.parquet; by default what the run was trained on, with
            its validation and test images. A model from the hub needs it.
        split: train, validation, test or all.
        batch_size: images at a time; changes no number.
        importance_samples: of an autoencoder, samples per image for an estimate of -log p(x); 0 leaves it out.
        distances: by which networks, with commas: effnet (the default where it is installed), inception (FID and KID by
            torch-fidelity), lpips; or none.
        samples: images to sample from a prior, or from p(z) of an autoencoder, whose distance to the data is measured;
            0 leaves it out.
        device: cpu, cuda, ...
    """
    from smalti.evaluation.perception import chosen_networks

    folder, is_prior, measured = Path(run), what_is(run) == "prior", data_of(run, data)
    own = effective(not is_prior, "on a prior", importance_samples=(importance_samples or None, 0))
    effective(not is_prior or samples > 0, "on a prior without samples", distances=(distances, None))
    networks = chosen_networks(distances, device) if samples or not is_prior else {}
    shared: dict[str, Any] = {"batch_size": batch_size, "networks": networks, "samples": samples, "progress": True}
    if is_prior:
        from smalti.evaluation.priors import evaluate_prior
        from smalti.priors.code_model import CodeModel

        model, cache = CodeModel.from_pretrained(run, device=device), folder if folder.is_dir() else None
        result = evaluate_prior(model, measured, split, cache=cache, **shared)
    else:
        from smalti.evaluation.autoencoders import evaluate as measure
        from smalti.models.autoencoder import Autoencoder

        model = Autoencoder.from_pretrained(run, device=device)
        result = measure(model, measured, split, **shared, **own)
    if folder.is_dir():  # a model from the hub has none
        from smalti.reports.model_card import model_card

        write_json(folder / "evaluation.json", result)
        if experiment := experiment_of(folder):
            write_text(folder / CARD, model_card(model, experiment, result))
    return result
