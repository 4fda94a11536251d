"""The verb `report`: several runs in one table."""

import csv
import math
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from smalti.apps.outfiles import new_file
from smalti.apps.runs import evaluation_of, experiment_of, what_is
from smalti.bundled import place_of
from smalti.configs import effective
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, atomic_path, file_hash, write_text

IMAGES = 12
NEEDED = ("data", "split", "num_images", "model_hash", "metrics")  # of an evaluation


def report(
    runs: list[str], *, out: str, metrics: str = "", images: int | None = None, names: str = "", force: bool = False
) -> dict[str, Any]:
    """Put what `evaluate` measured of several runs into one table: Markdown, CSV, and a page with pictures.

    Args:
        runs: folders of evaluated runs, autoencoders and priors.
        out: the folder for a table as Markdown, CSV and HTML, each named report, and the same images from each run.
        metrics: names of metrics to show, with commas; all that were measured by default.
        images: of the split, evenly spaced, to show side by side on the page; 12 by default, 0 for none.
        names: of the runs in the table, in their order, with commas ("a name, with a comma" in quotes); those of
            their folders by default.
        force: overwrite a report in the folder.
    """
    from smalti.models.autoencoder import Autoencoder
    from smalti.reports.runs_page import runs_page, sheets
    from smalti.reports.tables import as_csv, as_markdown, as_records, metric_names

    for suffix in ("md", "csv", "html"):
        new_file(Path(out) / f"report.{suffix}", force)
    runs = [place_of(run) for run in runs]
    shown, wanted = _names(runs, names), _listed("metrics", metrics)
    if images is not None and images < 0:
        raise SmaltiError(f"images must be 0 or more, not {images}")
    evaluations = [_evaluation(run) for run in runs]
    rows, models = [], {}
    for run, name, evaluation in zip(runs, shown, evaluations, strict=True):
        row, model = _row(run, name, evaluation)
        rows.append(row)
        if isinstance(model, Autoencoder):
            models[name] = model
    metric_names(rows, wanted)
    count = effective(bool(models), "on priors alone", images=(images, IMAGES)).get("images", 0)
    shown_images = sheets(rows, models, count)
    texts = {
        "report.md": as_markdown(rows, wanted) + "\n",
        "report.csv": as_csv(rows, wanted),
        "report.html": runs_page(rows, shown_images, wanted),
    }
    for file, text in texts.items():
        write_text(Path(out) / file, text)
    pictures = {f"images{number or ''}.png": sheet.picture() for number, sheet in enumerate(shown_images)}
    for file, picture in pictures.items():
        with atomic_path(Path(out) / file) as temporary:
            picture.save(temporary, "PNG", optimize=True)
    written = [str(Path(out) / file) for file in [*texts, *pictures]]
    return {"rows": as_records(rows, wanted), "markdown": texts["report.md"], "written": written}


def _listed(what: str, text: str) -> list[str]:
    """What stands between commas, quotes as in CSV."""
    items = [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]
    if text and not all(items):
        raise SmaltiError(f"{what} {text!r} has an empty place; separate them by single commas")
    if twice := [item for item, times in Counter(items).items() if times > 1]:
        raise SmaltiError(f"{what} {text!r} has {twice[0]!r} twice; give it once")
    return items


def _names(runs: list[str], names: str) -> list[str]:
    """A different name for each run: those given, those of the folders, or the whole paths."""
    if not runs:
        raise SmaltiError("there is no run to report; name the folder of one at least")
    folders = Counter(Path(run).resolve() for run in runs)
    if twice := [str(folder) for folder, times in folders.items() if times > 1]:
        raise SmaltiError(f"{twice[0]} is listed twice; name each run once")
    given = _listed("names", names)
    if given and len(given) != len(runs):
        raise SmaltiError(f"there are {len(given)} names for {len(runs)} runs; give one for each, in their order")
    own = [folder.name for folder in folders]
    return given or (own if len(set(own)) == len(own) else list(runs))


def _evaluation(run: str) -> dict[str, Any]:
    """What `evaluate` wrote, if it is of the weights that the run has now."""
    folder = Path(run)
    path = folder / "evaluation.json"
    if not (folder / CONFIG).exists():
        raise SmaltiError(f"{run} is not the folder of a run; train one, or check the path")
    evaluation = evaluation_of(folder)
    if evaluation is None:
        raise SmaltiError(f"{run} has not been evaluated; run: smalti evaluate {run} --data DATA")
    if missing := [key for key in NEEDED if key not in evaluation]:
        raise SmaltiError(f"{path} lacks {', '.join(missing)}; run: smalti evaluate {run} --data DATA")
    if (found := evaluation["model_hash"]) != (now := file_hash(folder / WEIGHTS)):
        again = f"smalti evaluate {run} --data {shlex.quote(evaluation['data'])} --split {evaluation['split']}"
        raise SmaltiError(f"{path} is stale: of the weights {found[:12]}, and now they are {now[:12]}; run: {again}")
    return evaluation


def _row(run: str, name: str, evaluation: dict[str, Any]) -> tuple[Any, Any]:
    """The run's row and its model."""
    from smalti.models.autoencoder import Autoencoder
    from smalti.priors.code_model import CodeModel
    from smalti.reports.tables import Row

    experiment, bits = experiment_of(Path(run)), None
    if what_is(run) == "prior":
        model = CodeModel.from_pretrained(run)
        bits = math.prod(model.config.grid) * math.log2(model.config.codebook_size)
    else:
        model = Autoencoder.from_pretrained(run)
        if per_pixel := evaluation["metrics"].get("nominal_bits_per_pixel"):
            bits = per_pixel * math.prod(model.config.preprocessing.size)
    steps = experiment.run.steps if experiment else None
    about = {"nominal_bits": bits, "num_parameters": model.num_parameters, "num_steps": steps}
    return Row(name, evaluation, about, run), model
