"""The verb `compare`: chosen systems, trained alike and measured side by side."""

import math
import statistics
from pathlib import Path
from typing import Any

from smalti.apps.evaluate import evaluate
from smalti.apps.memory import peak_bytes, reset_peak
from smalti.apps.output import say
from smalti.apps.train import train
from smalti.configs import effective, nearest
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import read_json, write_json, write_text
from smalti.recipes import RECIPES
from smalti.training.experiment import Experiment

SYSTEMS = {name: RECIPES[name] for name in ("ae", "vae", "vqvae", "dvae", "fsq", "lfq", "bsq", "rvq", "pq")}
SHOWN = 16


def compare(
    *,
    data: str,
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
        out: the folder for report.html, comparison.json and the runs.
        systems: names from ae, vae, vqvae, dvae, fsq, lfq, bsq, rvq, pq, separated by commas.
        codebook_size: K of the discrete ones, a power of two, 512 by default; those with several codebooks share its
            bits among them.
        image_size: height and width, pixels.
        stride: pixels per grid position.
        width: channels of the networks at the finest resolution.
        steps: optimiser steps of each.
        seed: of everything random.
        seeds: how often each is trained, with this seed and those after it.
        split: what is measured: test, validation or train.
        **settings: of each run, see `RunSettings`; by default those of the recipes, and 40 lines of metrics.jsonl.
    """
    from smalti.evaluation.comparison import gradient_noise, rate_distortion, some_images
    from smalti.models.autoencoder import Autoencoder
    from smalti.models.bottlenecks import DiscreteBottleneck
    from smalti.report.comparison_page import System, as_html, as_json
    from smalti.report.latent_pictures import latent_pictures
    from smalti.training.log import read_metrics

    chosen = _chosen(systems)
    effective(any(rate(name, 512) for name in chosen), "on systems without codes", codebook_size=(codebook_size, 512))
    codebook_size = 512 if codebook_size is None else codebook_size
    if codebook_size < 4 or codebook_size & (codebook_size - 1):
        raise SmaltiError(f"codebook_size must be a power of two, at least 4, not {codebook_size}")
    if seeds < 1:
        raise SmaltiError(f"seeds must be at least 1, not {seeds}")
    common = {"image_size": image_size, "stride": stride, "width": width}
    settings = {**settings, "steps": steps, "log_every": settings.get("log_every") or max(1, steps // 40)}
    recipes = {name: SYSTEMS[name](data=data, **rate(name, codebook_size), **common) for name in chosen}
    recipes = {name: recipe.with_settings(**settings) for name, recipe in recipes.items()}
    measured: list[System] = []
    for name, recipe in recipes.items():
        models, evaluations, costs, records = [], [], [], []
        for number in range(seed, seed + seeds):
            run = Path(out) / "runs" / f"{name}-{number}"
            say(f"{name}, seed {number}: {steps} steps into {run}")
            costs.append(_train(recipe.with_settings(seed=number), run))
            evaluations.append(_evaluate(run, data, split))
            models.append(Autoencoder.from_pretrained(run))
            records.append(read_metrics(run / "metrics.jsonl"))
        model, bottleneck = models[0], models[0].bottleneck
        images = some_images(model, data, split, 64)
        discrete = isinstance(bottleneck, DiscreteBottleneck)
        grid = bottleneck.grid_shape(image_size // stride, image_size // stride) if discrete else ()
        measured.append(
            System(
                name=name,
                models=models,
                evaluations=evaluations,
                records=records[0],
                noise=gradient_noise(model, images[:32], recipe.loss),
                points=rate_distortion(model, evaluations[0]["metrics"], images),
                pictures=list(latent_pictures(model, images)),
                images_per_second=statistics.median(record["images_per_second"] for record in records[0]),
                peak_bytes=costs[0],
                bits_per_image=math.prod(grid) * math.log2(bottleneck.codebook_size) if discrete else None,
            )
        )
    shared = {**common, "steps": steps, "batch_size": recipes[chosen[0]].run.batch_size, "seeds": seeds,
              "codebook_size": codebook_size}  # fmt: skip
    report, numbers = Path(out) / "report.html", Path(out) / "comparison.json"
    shown = some_images(measured[0].models[0], data, split, SHOWN)
    write_json(numbers, as_json(measured, {"data": data, "split": split, "seed": seed, **shared}))
    write_text(report, as_html(measured, shared, shown))
    psnr = {f"{system.name}_psnr_db": statistics.mean(system.values("psnr_db")) for system in measured}
    return {"written": [str(report), str(numbers)], **psnr}


def rate(name: str, codebook_size: int) -> dict[str, Any]:
    """The options that make a recipe spend log2 K bits at each grid position; K a power of two."""
    bits = codebook_size.bit_length() - 1
    match name:
        case "ae" | "vae":
            return {}
        case "fsq":
            fours = -bits % 3 if bits > 1 else 0  # 3 bits are a channel of 8 levels, 2 bits one of 4
            return {"levels": (8,) * ((bits - 2 * fours) // 3) + (4,) * fours}
        case "lfq" | "bsq":
            return {"bits": bits}
        case "rvq" | "pq":
            count = next(count for count in (3, 2, 1) if bits % count == 0)
            more = {"code_dim": 12 if count == 3 else 16} if name == "pq" else {}
            return {"num_codebooks": count, "codebook_size": 2 ** (bits // count), **more}
        case _:
            return {"codebook_size": codebook_size}


def _chosen(systems: str) -> list[str]:
    names = [name.strip() for name in systems.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise SmaltiError(f"systems must be different names separated by commas, not {systems!r}")
    for name in names:
        if name not in SYSTEMS:
            raise SmaltiError(f"unknown system {name!r}; {nearest(name, SYSTEMS)}")
    return names


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
