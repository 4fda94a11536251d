"""What a run's folder holds."""

from pathlib import Path
from typing import Any

from smalti.configs import fit, from_dict
from smalti.data.config import DataConfig
from smalti.errors import SmaltiError, one_line, shown
from smalti.files import BEST, CONFIG, read_json
from smalti.training.experiment import Experiment, PriorExperiment

EVALUATION = {"data": str, "split": str, "num_images": int, "model_hash": str, "preprocessing": dict[str, Any]}


def what_is(run: str) -> str:
    """What a folder holds, "autoencoder" or "prior"; what is not here is taken for an autoencoder on the hub."""
    path = Path(run) / CONFIG
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
    experiment = experiment_of(Path(run))
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


def open_models(run: str, prior: str | None, device: str) -> tuple[Any, Any]:
    """The autoencoder and, if there is one, the prior of a run, remembered for `decompress`."""
    from smalti.codec.model_index import remember
    from smalti.models.autoencoder import Autoencoder
    from smalti.priors.code_model import CodeModel

    code_model = None
    if prior is not None or what_is(run) == "prior":
        place = prior or run
        code_model = CodeModel.from_pretrained(place, device=device)
        if code_model.config.pixels:
            raise SmaltiError(f"{place} is a prior of pixels; give a prior of a tokenizer's codes")
        run = run if prior is not None else code_model.config.tokenizer
        remember(code_model.source_hash, place)
    model = Autoencoder.from_pretrained(run, device=device)
    remember(model.source_hash, run)
    return model, code_model
