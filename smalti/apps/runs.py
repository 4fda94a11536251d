"""What a run's folder holds."""

from pathlib import Path
from typing import Any

from smalti.bundled import place_of
from smalti.configs import effective, fit, from_dict
from smalti.data.config import DataConfig
from smalti.errors import SmaltiError, one_line, shown
from smalti.files import BEST, CONFIG, WEIGHTS, file_hash, read_json
from smalti.training.experiment import Experiment, PriorExperiment

EVALUATION = {"data": str, "split": str, "num_images": int, "model_hash": str, "preprocessing": dict[str, Any]}


def what_is(run: str) -> str:
    """What a folder holds, "autoencoder" or "prior"; what is not here is taken for an autoencoder on the hub."""
    path = Path(place_of(run)) / CONFIG
    values = read_json(path) if path.exists() else {}
    return str(values.get("smalti")) if isinstance(values, dict) else ""


def experiment_of(run: Path) -> Experiment | PriorExperiment | None:
    """The settings that a run was trained with; None where its folder does not say."""
    path, kind = run / "experiment.json", PriorExperiment if what_is(str(run)) == "prior" else Experiment
    if not path.exists():
        return None
    with one_line(path, f"{path} is damaged"):
        return from_dict(kind, read_json(path), "")


def data_of(run: str, data: str | None) -> DataConfig:
    """The data that `--data` names; without it those that a run was trained on, with its validation and test images.

    Raises:
        SmaltiError: neither: a model from the hub, or a folder without experiment.json.
    """
    if data is not None:
        return DataConfig.of(data)
    experiment = experiment_of(Path(place_of(run)))
    if experiment is None:
        raise SmaltiError(f"{run}: no experiment.json here says what it was trained on; check the path, or give --data")
    return experiment.data


def best_of(run: Path) -> dict[str, Any] | None:
    """The step and the validation_loss of the model of a run that keeps its best; None where it is the last."""
    path = run / BEST
    if not path.exists():
        return None
    with one_line(path, f"{path} is damaged"):
        best = fit(dict[str, Any], read_json(path), "best")
        return {"step": fit(int, best["step"], "step"), "validation_loss": fit(float, best["validation_loss"], "loss")}


def evaluation_of(run: Path) -> dict[str, Any] | None:
    """What `evaluate` wrote into a run's folder; None where it has not been evaluated.

    Raises:
        SmaltiError: something else stands there.
    """
    path = run / "evaluation.json"
    if not path.exists():
        return None
    with one_line(path, f"{path} is damaged"):
        evaluation = fit(dict[str, Any], read_json(path), "evaluation")
        for key in evaluation.keys() & EVALUATION.keys():
            fit(EVALUATION[key], evaluation[key], key)
        metrics = fit(dict[str, Any], evaluation.get("metrics"), "metrics")
        if odd := [name for name, value in metrics.items() if type(value) not in (int, float)]:
            raise SmaltiError(f"metrics.{odd[0][:60]}: expected a number, got {shown(metrics[odd[0]])}")
        return evaluation


def kept_evaluation(run: Path) -> dict[str, Any] | None:
    """What `evaluate` measured of the weights that a run has now; None where there is nothing, or it is damaged."""
    try:
        found = evaluation_of(run)
    except SmaltiError:
        return None
    current = found and (run / WEIGHTS).is_file() and found.get("model_hash") == file_hash(run / WEIGHTS)
    return found if current else None


def open_models(run: str, prior: str | None, device: str, tokenizer: str | None = None) -> tuple[Any, Any]:
    """The autoencoder and, if there is one, the prior of a run, remembered for `decompress`.

    Args:
        run: of an autoencoder, or of a prior, whose tokenizer is then the autoencoder.
        prior: of the codes of `run`.
        device: cpu, cuda, ...
        tokenizer: where that of a prior is now; by default where the prior says.
    """
    from smalti.codec.model_index import remember
    from smalti.generate.tokenizer import open_trained
    from smalti.models.autoencoder import Autoencoder

    run = place_of(run)
    if prior is None and what_is(run) == "prior":
        code_model = open_prior(run, device)
        opened = open_trained(code_model.use_tokenizer(tokenizer).config, device)
        remember(opened.source_hash, code_model.config.tokenizer)
        return opened.model, code_model
    effective(False, "on an autoencoder", tokenizer=(tokenizer, None))
    model = Autoencoder.from_pretrained(run, device=device)
    remember(model.source_hash, run)
    return model, None if prior is None else open_prior(prior, device)


def open_prior(run: str, device: str) -> Any:
    """A prior of a tokenizer's codes, remembered.

    Raises:
        SmaltiError: a prior of pixels.
    """
    from smalti.codec.model_index import remember
    from smalti.priors.code_model import CodeModel

    run = place_of(run, "prior")
    code_model = CodeModel.from_pretrained(run, device=device)
    if code_model.config.pixels:
        raise SmaltiError(f"{run} is a prior of pixels; give a prior of a tokenizer's codes")
    remember(code_model.source_hash, run)
    return code_model
