"""The verb `models`: what is at hand. From Python it is `smalti.apps.models.models`: `smalti.models` is a room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smalti.apps.runs import evaluation_of, experiment_of, what_is
from smalti.bundled import HOME, bundled
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, read_json

RUNS = "runs"
DEPTH = 4  # folders within a folder of runs: a prior in its tokenizer's, of a comparison
MAIN = ("psnr_db", "bits_per_code", "bits_per_dim")  # the first of them that was measured
CODES = ("codebook_size", "levels", "bits")  # how the spec of a bottleneck says what its codes are


def models(folders: list[str] | None = None) -> dict[str, Any]:
    """List the models at hand: those of the package, and the runs in folders.

    Args:
        folders: whose runs are listed, with those in folders within; by default the folder runs, if it is here.
    """
    places = folders or [RUNS]
    for place in folders or []:
        if not Path(place).is_dir():
            raise SmaltiError(f"{place}: no such folder; name one that has runs")
    rows = [_row(name, HOME / name) for name in bundled()]
    rows += [_row(run.as_posix(), run) for run in dict.fromkeys(run for place in places for run in _runs(Path(place)))]
    return {"model_rows": rows}


def _runs(place: Path) -> Iterator[Path]:
    """The folders of models in a folder, itself among them."""
    patterns = ["/".join(["*"] * depth + [CONFIG]) for depth in range(DEPTH + 1)]
    found = sorted(path.parent for pattern in patterns for path in place.glob(pattern))
    return (folder for folder in found if (folder / WEIGHTS).is_file())


def _row(name: str, folder: Path) -> dict[str, Any]:
    """What a model is, from its small files; of a damaged one what is wrong."""
    row: dict[str, Any] = {"name": name, "num_bytes": (folder / WEIGHTS).stat().st_size, "kind": "", "made_by": "",
                           "codes": "", "data": "", "metric": "", "value": None, "remark": ""}  # fmt: skip
    try:
        kind = what_is(str(folder))
        if kind not in ("autoencoder", "prior"):
            return row | {"remark": "of another project"}
        config, experiment, evaluation = read_json(folder / CONFIG), experiment_of(folder), evaluation_of(folder)
        spec = config["prior"] if kind == "prior" else config["bottleneck"]
        row |= {"kind": kind, "made_by": experiment.recipe if experiment else spec["kind"], "codes": _codes(config)}
        row |= {"data": str(experiment.data)} if experiment else {}
        metrics = evaluation["metrics"] if evaluation else {}
        return row | next(({"metric": metric, "value": metrics[metric]} for metric in MAIN if metric in metrics), {})
    except (SmaltiError, KeyError, TypeError) as error:
        return row | {"remark": f"damaged: {error}"}


def _codes(config: dict[str, Any]) -> str:
    """How many codes there are, as config.json says it: K, or levels or bits; nothing of an AE and a VAE."""
    spec = config if "codebook_size" in config else config["bottleneck"]
    told = next((spec[key] for key in CODES if spec.get(key)), "")
    return "x".join(map(str, told)) if isinstance(told, list) else f"2^{told}" if "bits" in spec else str(told)
