"""The verb `compare`: chosen systems, trained alike and measured side by side, with priors on the codes of some."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.apps.contenders import PRIORS, ChosenPrior, chosen_priors, chosen_systems
from smalti.apps.evaluate import evaluate
from smalti.apps.memory import memory_bytes, reset_peak
from smalti.apps.output import say
from smalti.apps.runs import kept_evaluation
from smalti.apps.train import train
from smalti.configs import effective
from smalti.data.config import DataConfig
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import read_json, write_json, write_text
from smalti.training.experiment import Experiment, Training

if TYPE_CHECKING:
    from smalti.reports.compared import Comparison, System, TrainedPrior

SHOWN = 16
PRIOR_STEPS = 400
SAMPLES = 1024  # of each set of images whose distance to the split is measured, or as many as the split has


def compare(
    *,
    data: str,
    validation: str = "",
    test: str = "",
    out: str,
    systems: str = "ae,vae,vqvae,dvae",
    priors: str = PRIORS,
    codebook_size: int | None = None,
    image_size: int | str = 32,
    stride: int = 4,
    width: int = 64,
    steps: int = 800,
    prior_steps: int | None = None,
    seeds: int = 1,
    split: Split = "test",
    **settings: Any,
) -> dict[str, Any]:
    """Train systems alike, and priors on the codes of some, and write one report; re-running goes on.

    The discrete ones spend the same bits at a position.

    Args:
        data: emoji, a folder of images or of idx files, or *.parquet.
        validation: the validation images, all of this data; by default some of --data.
        test: the test images, all of this data; by default some of --data.
        out: the folder for report.html, comparison.json and the runs.
        systems: recipes of autoencoders (see `smalti train --help`) or path/to/file.py:function, with commas.
        priors: SYSTEM:RECIPE with commas, recipes of priors on the codes of those systems, or none; those of the
            default whose system is compared.
        codebook_size: K of the discrete ones, a power of two, 512 by default; each gets the form that spends its bits
            at a position.
        image_size: height and width in pixels, as 32 or 16x32.
        stride: pixels per grid position.
        width: channels of the networks at the finest resolution.
        steps: optimiser steps of each system.
        prior_steps: optimiser steps of each prior; 400 by default.
        seeds: how often each system is trained, with --seed and those after it; priors are trained once.
        split: what is measured: test, validation or train.
        **settings: of each run, see `RunSettings`; by default those of the recipes, and 40 lines of metrics.jsonl.
    """
    from smalti.evaluation.perception import chosen_networks
    from smalti.models.bottlenecks import BOTTLENECKS, DiscreteBottleneck
    from smalti.reports.comparison_page import as_html, as_json, as_result

    size = 512 if codebook_size is None else codebook_size
    if size < 4 or size & (size - 1):
        raise SmaltiError(f"codebook_size must be a power of two, at least 4, not {size}")
    if seeds < 1:
        raise SmaltiError(f"seeds must be at least 1, not {seeds}")
    common = {"image_size": image_size, "stride": stride, "width": width}
    source = DataConfig(data=data, validation=validation, test=test)
    of_data = {"data": data, **source.elsewhere}
    chosen = chosen_systems(systems, size.bit_length() - 1, {**of_data, **common})
    kinds = [BOTTLENECKS[training.model.bottleneck["kind"]] for training in chosen.values()]
    discrete = any(issubclass(kind, DiscreteBottleneck) for kind in kinds)
    effective(discrete, "on systems without codes", codebook_size=(codebook_size, 512))
    chosen_on_codes = chosen_priors(priors, chosen, of_data)
    lengths = {"steps": steps}
    lengths |= effective(bool(chosen_on_codes), "without priors", prior_steps=(prior_steps, PRIOR_STEPS))
    trainings = {name: _with_length(training, steps, settings) for name, training in chosen.items()}
    first = next(iter(trainings.values())).run
    numbers = range(first.seed, first.seed + seeds)
    runs = {name: [Path(out) / "runs" / f"{name}-{number}" for number in numbers] for name in trainings}

    measured = [_system(training, name, runs[name], source, split) for name, training in trainings.items()]
    on_codes = {
        _prior_run(runs[one.system][0], one.name): _prior(
            one, runs[one.system][0], lengths["prior_steps"], settings, source, split
        )
        for one in chosen_on_codes
    }
    shared = {**common, **lengths, "batch_size": first.batch_size, "seeds": seeds, "codebook_size": size}
    networks = chosen_networks(None, "cpu")
    found = _side_by_side(measured, on_codes, source, split, shared, networks)
    report, table = Path(out) / "report.html", Path(out) / "comparison.json"
    write_json(table, as_json(found, {"data": str(source), "split": split, "seed": first.seed, **shared}))
    write_text(report, as_html(found))
    return {"written": [str(report), str(table)], **as_result(found)}


def _with_length(training: Any, steps: int, settings: Mapping[str, Any]) -> Any:
    """The training with these steps and settings, and 40 lines of metrics.jsonl."""
    log_every = settings.get("log_every") or max(1, steps // 40)
    return training.with_settings(**{**settings, "steps": steps, "log_every": log_every})


def _system(training: Experiment, name: str, runs: Sequence[Path], source: DataConfig, split: Split) -> "System":
    """Train a system, one run a seed, and measure it."""
    from smalti.data.batches import some_images
    from smalti.evaluation.comparison import gradient_noise, gradient_path, rate_distortion, relaxation
    from smalti.models.autoencoder import Autoencoder
    from smalti.models.bottlenecks import DiscreteBottleneck
    from smalti.reports.compared import System
    from smalti.reports.latent_pictures import latent_pictures
    from smalti.training.log import read_metrics

    evaluations, costs = [], []
    for number, run in enumerate(runs, start=training.run.seed):
        say(f"{name}, seed {number}: {training.run.steps} steps into {run}")
        costs.append(_train(training.with_settings(seed=number), run))
        evaluations.append(_evaluate(run, source, split))
    model, records = Autoencoder.from_pretrained(runs[0]), read_metrics(runs[0] / "metrics.jsonl")
    images, bits = some_images(source, split, model.config.preprocessing, 64), None
    if isinstance(model.bottleneck, DiscreteBottleneck):
        bits = math.prod(model.bottleneck.grid_shape(*model.grid)) * math.log2(model.bottleneck.codebook_size)
    return System(
        name=name,
        model=model,
        evaluations=evaluations,
        records=records,
        path=gradient_path(model, images[:32]),
        noise=gradient_noise(model, images[:32], training.loss),
        relaxed=relaxation(model, images, training.loss),
        points=rate_distortion(model, evaluations[0]["metrics"], images),
        pictures=list(latent_pictures(model, images)),
        images_per_second=_speed(records),
        peak_bytes=costs[0],
        bits_per_image=bits,
    )


def _prior_run(tokenizer: Path, name: str) -> Path:
    return tokenizer.with_name(f"{tokenizer.name}-{name}")


def _prior(
    chosen: ChosenPrior, tokenizer: Path, steps: int, settings: Mapping[str, Any], source: DataConfig, split: Split
) -> "TrainedPrior":
    """Train a prior on the codes of a trained system, and measure it."""
    from smalti.priors.code_model import CodeModel
    from smalti.reports.compared import TrainedPrior
    from smalti.training.log import read_metrics

    run = _prior_run(tokenizer, chosen.name)
    say(f"{chosen.name} on the codes of {tokenizer}: {steps} steps into {run}")
    _train(_with_length(chosen.experiment(tokenizer), steps, settings), run)
    evaluation, records = _evaluate(run, source, split), read_metrics(run / "metrics.jsonl")
    return TrainedPrior(
        name=chosen.name,
        system=chosen.system,
        evaluation=evaluation,
        num_parameters=CodeModel.from_pretrained(run).num_parameters,
        images_per_second=_speed(records),
    )


def _side_by_side(
    systems: Sequence["System"],
    priors: Mapping[Path, "TrainedPrior"],
    source: DataConfig,
    split: Split,
    shared: Mapping[str, Any],
    networks: Mapping[str, Any],
) -> "Comparison":
    """What is measured of all systems and priors together, on the same images."""
    from smalti.data.batches import some_images
    from smalti.evaluation.comparison import pca_baseline
    from smalti.evaluation.generation import open_sampler_of_prior, sampler_of_model, sampler_of_noise
    from smalti.evaluation.samples import REAL, measure_sets
    from smalti.reports.compared import Comparison, Origin

    preprocessing, made = systems[0].model.config.preprocessing, []
    for system in systems:
        if system.model.bottleneck.has_prior:
            what = "codes from p(z)" if system.discrete else "z from p(z)"
            made.append((Origin(f"{system.name}, {what}", "p(z)", system.name), sampler_of_model(system.model)))
        else:
            sampler = sampler_of_noise(system.model, some_images(source, "train", preprocessing, 256))
            made.append((Origin(f"{system.name}, noise like its latents", "noise", system.name), sampler))
    for run, prior in priors.items():
        sampler = open_sampler_of_prior(run, source, split)
        made.append((Origin(prior.title, "prior", prior.system, prior.name), sampler))
    again = [
        (Origin(f"{system.name}, reconstructions", "reconstruction", system.name), system.model.reconstruct)
        for system in systems
    ]
    say(f"{len(made)} kinds of samples, side by side")
    samplers, reconstructors = ({origin.title: make for origin, make in part} for part in (made, again))
    sets = measure_sets(source, split, SAMPLES, preprocessing, networks, samplers, reconstructors)
    dims = sorted({system.num_latents for system in systems if system.discrete is None})
    return Comparison(
        systems=systems,
        priors=list(priors.values()),
        settings=shared,
        images=some_images(source, split, preprocessing, SHOWN),
        origins=[origin for origin, _ in made] + [Origin(REAL, "real")] + [origin for origin, _ in again],
        sets=sets,
        pca={count: pca_baseline(source, split, preprocessing, count, SHOWN) for count in dims},
    )


def _train(experiment: Training, run: Path) -> int | None:
    """Train or go on; returns the peak of memory of the whole training, kept in its folder, if it can be measured."""
    kept, before = run / "cost.json", _steps_of(run)
    if before not in (None, experiment.run.steps):
        how = f"{before} steps, not {experiment.run.steps}; what is compared is trained in one go: choose another --out"
        raise SmaltiError(f"{run} holds a run of {how}")
    measurable = not (run / "metrics.jsonl").exists() and reset_peak()
    train(experiment, run)
    if measurable:
        write_json(kept, {"peak_bytes": memory_bytes("VmHWM")})
    return read_json(kept).get("peak_bytes") if kept.exists() else None


def _steps_of(run: Path) -> int | None:
    """How long the training in a folder is to be, where it says so."""
    try:
        return read_json(run / "experiment.json")["run"]["steps"]
    except (SmaltiError, KeyError, TypeError):
        return None


def _speed(records: Sequence[Mapping[str, float]]) -> float:
    """Images a second, from the log; nan where it has been lost."""
    speeds = [record["images_per_second"] for record in records if "images_per_second" in record]
    return statistics.median(speeds) if speeds else math.nan


def _evaluate(run: Path, data: DataConfig, split: Split) -> dict[str, Any]:
    """The evaluation kept in the run, if it is of this model and split and of these images; else a new one."""
    from smalti.data.sources import open_data

    found = kept_evaluation(run)
    if found and (found.get("split"), found.get("fingerprint")) == (split, open_data(data, split).fingerprint):
        return found
    return evaluate(str(run), split=split)
