"""The verb `compare`: chosen systems, trained alike and measured side by side."""

import inspect
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from smalti.apps.code import find_recipe
from smalti.apps.evaluate import evaluate
from smalti.apps.memory import memory_bytes, reset_peak
from smalti.apps.output import say
from smalti.apps.train import train
from smalti.configs import effective
from smalti.data.config import DataConfig
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import WEIGHTS, file_hash, read_json, write_json, write_text
from smalti.training.experiment import Experiment

SHOWN = 16


def compare(
    *,
    data: str,
    validation: str = "",
    test: str = "",
    out: str,
    systems: str = "ae,vae,vqvae,dvae",
    codebook_size: int | None = None,
    image_size: int = 32,
    stride: int = 4,
    width: int = 64,
    steps: int = 800,
    seed: int = 0,
    seeds: int = 1,
    split: Split = "test",
    **settings: Any,
) -> dict[str, Any]:
    """Train systems alike, at the same rate where they are discrete, and write one report; re-running goes on.

    Args:
        data: emoji, a folder of images or of idx files, or *.parquet.
        validation: the validation images, all of this data; by default some of --data.
        test: the test images, all of this data; by default some of --data.
        out: the folder for report.html, comparison.json and the runs.
        systems: recipes of autoencoders (see `smalti train --help`) or path/to/file.py:function, with commas.
        codebook_size: K of the discrete ones, a power of two, 512 by default; each gets the form that spends its bits
            at a position.
        image_size: height and width, pixels.
        stride: pixels per grid position.
        width: channels of the networks at the finest resolution.
        steps: optimiser steps of each.
        seed: of everything random.
        seeds: how often each is trained, with this seed and those after it.
        split: what is measured: test, validation or train.
        **settings: of each run, see `RunSettings`; by default those of the recipes, and 40 lines of metrics.jsonl.
    """
    from smalti.data.batches import some_images
    from smalti.evaluation.comparison import gradient_noise, rate_distortion
    from smalti.models.autoencoder import Autoencoder
    from smalti.models.bottlenecks import BOTTLENECKS, DiscreteBottleneck
    from smalti.reports.comparison_page import System, as_html, as_json
    from smalti.reports.latent_pictures import latent_pictures
    from smalti.training.log import read_metrics

    chosen, size = _chosen(systems), 512 if codebook_size is None else codebook_size
    if size < 4 or size & (size - 1):
        raise SmaltiError(f"codebook_size must be a power of two, at least 4, not {size}")
    if seeds < 1:
        raise SmaltiError(f"seeds must be at least 1, not {seeds}")
    common = {"image_size": image_size, "stride": stride, "width": width}
    settings = {**settings, "steps": steps, "log_every": settings.get("log_every") or max(1, steps // 40)}
    source = DataConfig(data=data, validation=validation, test=test)
    alike = {"data": data, **source.elsewhere, **common}
    trainings = {
        name: _experiment(name, recipe, size.bit_length() - 1, alike).with_settings(**settings)
        for name, recipe in chosen.items()
    }
    kinds = [BOTTLENECKS[training.model.bottleneck["kind"]] for training in trainings.values()]
    discrete = any(issubclass(kind, DiscreteBottleneck) for kind in kinds)
    effective(discrete, "on systems without codes", codebook_size=(codebook_size, 512))
    measured: list[System] = []
    for name, training in trainings.items():
        evaluations, costs = [], []
        runs = {number: Path(out) / "runs" / f"{name}-{number}" for number in range(seed, seed + seeds)}
        for number, run in runs.items():
            say(f"{name}, seed {number}: {steps} steps into {run}")
            costs.append(_train(training.with_settings(seed=number), run))
            evaluations.append(_evaluate(run, source, split))
        model, records = Autoencoder.from_pretrained(runs[seed]), read_metrics(runs[seed] / "metrics.jsonl")
        images, bottleneck = some_images(source, split, model.config.preprocessing, 64), model.bottleneck
        bits = None
        if isinstance(bottleneck, DiscreteBottleneck):
            grid = bottleneck.grid_shape(image_size // stride, image_size // stride)
            bits = math.prod(grid) * math.log2(bottleneck.codebook_size)
        measured.append(
            System(
                name=name,
                model=model,
                evaluations=evaluations,
                records=records,
                noise=gradient_noise(model, images[:32], training.loss),
                points=rate_distortion(model, evaluations[0]["metrics"], images),
                pictures=list(latent_pictures(model, images)),
                images_per_second=statistics.median(record["images_per_second"] for record in records),
                peak_bytes=costs[0],
                bits_per_image=bits,
            )
        )
    batch_size = next(iter(trainings.values())).run.batch_size
    shared = {**common, "steps": steps, "batch_size": batch_size, "seeds": seeds, "codebook_size": size}
    report, numbers = Path(out) / "report.html", Path(out) / "comparison.json"
    shown = some_images(source, split, measured[0].model.config.preprocessing, SHOWN)
    write_json(numbers, as_json(measured, {"data": str(source), "split": split, "seed": seed, **shared}))
    write_text(report, as_html(measured, shared, shown))
    psnr = {f"{system.name}_psnr_db": statistics.mean(system.values("psnr_db")) for system in measured}
    return {"written": [str(report), str(numbers)], **psnr}


def _chosen(systems: str) -> dict[str, Callable[..., Any]]:
    """The recipes that `--systems` names, by their short names."""
    wanted = [name.strip() for name in systems.split(",") if name.strip()]
    found = dict(map(find_recipe, wanted))
    if not wanted or len(found) < len(wanted):
        raise SmaltiError(f"systems must be different names separated by commas, not {systems!r}")
    return found


def _experiment(name: str, recipe: Callable[..., Any], bits: int, options: dict[str, Any]) -> Experiment:
    """A system's training with the options that all have in common, its codes of `bits` bits where it is discrete."""
    from smalti.models.bottlenecks import BOTTLENECKS

    try:
        inspect.signature(recipe).bind(**options)
    except TypeError as error:
        alike = f"systems are trained alike, so their recipes take {', '.join(options)}"
        raise SmaltiError(f"{name} cannot be compared: {error}; {alike}") from error
    experiment = recipe(**options)
    if not isinstance(experiment, Experiment):
        raise SmaltiError(f"{name} cannot be compared: it is no recipe of an autoencoder")
    spec = experiment.model.bottleneck
    bottleneck = {**spec, **BOTTLENECKS[spec["kind"]].at_rate(bits)}
    return replace(experiment, model=replace(experiment.model, bottleneck=bottleneck))


def _train(experiment: Experiment, run: Path) -> int | None:
    """Train or go on; returns the peak of memory of the whole training, kept in its folder, if it can be measured."""
    kept = run / "cost.json"
    measurable = not (run / "metrics.jsonl").exists() and reset_peak()
    train(experiment, run)
    if measurable:
        write_json(kept, {"peak_bytes": memory_bytes("VmHWM")})
    return read_json(kept)["peak_bytes"] if kept.exists() else None


def _evaluate(run: Path, data: DataConfig, split: Split) -> dict[str, Any]:
    """The evaluation kept in the run, if it is of this model, data and split; else a new one."""
    kept = run / "evaluation.json"
    if kept.exists():
        found, wanted = read_json(kept), (file_hash(run / WEIGHTS), str(data), split)
        if (found["model_hash"], found["data"], found["split"]) == wanted:
            return found
    return evaluate(str(run), split=split)
