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
from smalti.apps.memory import peak_bytes, reset_peak
from smalti.apps.output import say
from smalti.apps.train import train
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import read_json, write_json, write_text
from smalti.training.experiment import Experiment

SHOWN = 16


def compare(
    *,
    data: str,
    out: str,
    systems: str = "ae,vae,vqvae,dvae",
    codebook_size: int = 512,
    image_size: int = 32,
    stride: int = 4,
    width: int = 64,
    steps: int = 800,
    batch_size: int = 32,
    seeds: int = 1,
    split: Split = "test",
) -> dict[str, Any]:
    """Train systems alike, at the same rate where they are discrete, and write one report; re-running goes on.

    Args:
        data: emoji, a folder of images or of idx files, or *.parquet.
        out: the folder for report.html, comparison.json and the runs.
        systems: recipes of autoencoders, separated by commas: ae, vae, vqvae, dvae, fsq, lfq, bsq, rvq, pq, or
            path/to/file.py:function.
        codebook_size: K of the discrete ones, a power of two; each gets the form that spends its bits at a position.
        image_size: height and width, pixels.
        stride: pixels per grid position.
        width: channels of the networks at the finest resolution.
        steps: optimiser steps of each.
        batch_size: images per batch.
        seeds: how often each is trained.
        split: what is measured: test, validation or train.
    """
    from smalti.data.batches import some_images
    from smalti.evaluation.comparison import gradient_noise, rate_distortion
    from smalti.models.autoencoder import Autoencoder
    from smalti.models.bottlenecks import DiscreteBottleneck
    from smalti.report.comparison_page import System, as_html, as_json
    from smalti.report.latent_pictures import latent_pictures
    from smalti.training.log import read_metrics

    chosen = _chosen(systems)
    if codebook_size < 4 or codebook_size & (codebook_size - 1):
        raise SmaltiError(f"codebook_size must be a power of two, at least 4, not {codebook_size}")
    if seeds < 1:
        raise SmaltiError(f"seeds must be at least 1, not {seeds}")
    bits = codebook_size.bit_length() - 1
    common = {"image_size": image_size, "stride": stride, "width": width, "steps": steps, "batch_size": batch_size}
    options = {"data": data, "log_every": max(1, steps // 40), **common}
    trainings = {
        name: [_experiment(name, recipe, bits, {**options, "seed": seed}) for seed in range(seeds)]
        for name, recipe in chosen.items()
    }
    measured: list[System] = []
    for name, experiments in trainings.items():
        models, evaluations, costs, records = [], [], [], []
        for seed, experiment in enumerate(experiments):
            run = Path(out) / "runs" / f"{name}-{seed}"
            say(f"{name}, seed {seed}: {steps} steps into {run}")
            costs.append(_train(experiment, run))
            evaluations.append(_evaluate(run, data, split))
            models.append(Autoencoder.from_pretrained(run))
            records.append(read_metrics(run / "metrics.jsonl"))
        model, bottleneck = models[0], models[0].bottleneck
        images = some_images(data, split, model.config.preprocessing, 64)
        discrete = isinstance(bottleneck, DiscreteBottleneck)
        grid = bottleneck.grid_shape(image_size // stride, image_size // stride) if discrete else ()
        measured.append(
            System(
                name=name,
                models=models,
                evaluations=evaluations,
                records=records[0],
                noise=gradient_noise(model, images[:32], experiments[0].loss, steps),
                points=rate_distortion(model, evaluations[0]["metrics"], images),
                pictures=list(latent_pictures(model, images)),
                images_per_second=statistics.median(record["images_per_second"] for record in records[0]),
                peak_bytes=costs[0],
                bits_per_image=math.prod(grid) * math.log2(bottleneck.codebook_size) if discrete else None,
            )
        )
    settings = {**common, "seeds": seeds, "codebook_size": codebook_size}
    report, numbers = Path(out) / "report.html", Path(out) / "comparison.json"
    shown = some_images(data, split, measured[0].models[0].config.preprocessing, SHOWN)
    write_json(numbers, as_json(measured, {"data": data, "split": split, **settings}))
    write_text(report, as_html(measured, settings, shown))
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
        raise SmaltiError(
            f"{name} cannot be compared: {error}; systems are trained alike, so their recipes take {', '.join(options)}"
        ) from error
    experiment = recipe(**options)
    if not isinstance(experiment, Experiment):
        raise SmaltiError(f"{name} cannot be compared: it is no recipe of an autoencoder")
    spec = experiment.model.bottleneck
    bottleneck = {**spec, **BOTTLENECKS[spec["kind"]].at_rate(bits)}
    return replace(experiment, model=replace(experiment.model, bottleneck=bottleneck))


def _train(experiment: Experiment, run: Path) -> int | None:
    """Train or go on; returns the peak of memory of the whole training, kept beside it, if it can be measured."""
    kept = run / "cost.json"
    fresh = not (run / "metrics.jsonl").exists()
    resettable = fresh and reset_peak()
    train(experiment, run)
    if resettable:
        write_json(kept, {"peak_bytes": peak_bytes()})
    return read_json(kept)["peak_bytes"] if kept.exists() else None


def _evaluate(run: Path, data: str, split: Split) -> dict[str, Any]:
    """The evaluation kept in the run, if it is of this model, data and split; else a new one."""
    from smalti.models.autoencoder import Autoencoder

    kept = run / "evaluation.json"
    if kept.exists():
        found = read_json(kept)
        wanted = (Autoencoder.from_pretrained(run).source_hash, data, split)
        if (found["model_hash"], found["data"], found["split"]) == wanted:
            return found
    return evaluate(str(run), data, split=split)
