"""What the verbs do, the same from Python and from the shell. Torch is imported when a verb runs, not before.

Every verb returns what `--json` prints; `as_text` turns it into what a person reads.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from smalti.configs import from_dict
from smalti.errors import SmaltiError
from smalti.files import CARD, CONFIG, atomic_path, file_hash, read_json, write_json, write_text
from smalti.train.experiment import Experiment, PriorExperiment, Training

Split = Literal["train", "validation", "test", "all"]
T = TypeVar("T")


def say(text: str) -> None:
    """Tell a person, on stderr."""
    print(text, file=sys.stderr)


def train(experiment: Training, out: Path) -> dict[str, Any]:
    """Train an autoencoder or a prior by a recipe; re-running resumes."""
    from smalti.evaluate.card import model_card, prior_card
    from smalti.train.log import read_metrics
    from smalti.train.loop import train as run_training

    card = prior_card if isinstance(experiment, PriorExperiment) else model_card
    run_training(experiment, out, card=card, progress=True)
    last = read_metrics(out / "metrics.jsonl")[-1]
    return {"run": str(out), **last}


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
        importance_samples: draws per image for an estimate of -log p(x); 0 leaves it out.
        device: cpu, cuda, ...
    """
    if what_is(run) == "prior":
        return _evaluate_prior(run, data, split, batch_size, device)
    from smalti.evaluate.autoencoders import evaluate as measure
    from smalti.evaluate.card import model_card
    from smalti.models.autoencoder import Autoencoder

    model = Autoencoder.from_pretrained(run, device=device)
    result = measure(model, data, split, batch_size=batch_size, importance_samples=importance_samples, progress=True)
    _record(Path(run), result, lambda folder: model_card(model, _experiment(folder, Experiment), result))
    return result


def _record(run: Path, result: dict[str, Any], card: Callable[[Path], str]) -> None:
    """Keep an evaluation in the run's folder; a model from the hub has none."""
    if run.is_dir():
        write_json(run / "evaluation.json", result)
        if (run / "experiment.json").exists():
            write_text(run / CARD, card(run))


def what_is(run: str) -> str:
    """What a folder holds, "autoencoder" or "prior"; what is not here is taken for an autoencoder on the hub."""
    path = Path(run) / CONFIG
    values = read_json(path) if path.exists() else {}
    return str(values.get("smalti")) if isinstance(values, dict) else ""


def _evaluate_prior(run: str, data: str, split: Split, batch_size: int, device: str) -> dict[str, Any]:
    from smalti.evaluate.card import prior_card
    from smalti.evaluate.priors import evaluate_prior
    from smalti.priors.code_model import CodeModel

    model = CodeModel.from_pretrained(run, device=device)
    cache = Path(run) if Path(run).is_dir() else None
    result = evaluate_prior(model, data, split, batch_size=batch_size, cache=cache, progress=True)
    _record(Path(run), result, lambda folder: prior_card(model, _experiment(folder, PriorExperiment), result))
    return result


def _experiment(run: Path, kind: type[T]) -> T:
    """The settings that a run was trained with."""
    path = run / "experiment.json"
    return from_dict(kind, read_json(path), str(path))


def reconstruct(run: str, images: list[str], *, out: str, device: str = "cpu") -> dict[str, Any]:
    """Write before | after pictures of images of any size.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        images: files, or folders of images.
        out: the folder for the pictures.
        device: cpu, cuda, ...
    """
    from smalti.apps.imagefiles import ImageFiles, unused
    from smalti.evaluate.metrics import mse, psnr_db
    from smalti.images import to_pil
    from smalti.models.autoencoder import Autoencoder
    from smalti.pictures import side_by_side

    model = Autoencoder.from_pretrained(run, device=device)
    images_in = ImageFiles(images, model.config.preprocessing.channels)
    written: list[str] = []
    quality: list[float] = []
    for files, batch in images_in.chunks("reconstructing"):
        for file, before, after in zip(files, batch, model.reconstruct_many(batch), strict=True):
            target = unused(Path(out) / f"{file.stem}.png", written)
            with atomic_path(target) as temporary:
                side_by_side(to_pil(before)[0], to_pil(after)[0]).save(temporary)
            written.append(str(target))
            quality.append(psnr_db(mse(before[None], after[None].cpu()).clamp(min=1e-10)).item())
    return {"written": written, "bad_images": images_in.bad, "mean_psnr_db": sum(quality) / len(quality)}


def encode(run: str, images: list[str], *, out: str = "codes.npz", device: str = "cpu") -> dict[str, Any]:
    """Turn images of any size into codes, in one npz file.

    Args:
        run: the folder of a trained model with a codebook, or owner/name on the hub.
        images: files, or folders of images.
        out: the npz file.
        device: cpu, cuda, ...
    """
    from smalti.apps.codefile import write_codes
    from smalti.apps.imagefiles import ImageFiles, unused
    from smalti.models.autoencoder import Autoencoder

    if not out.endswith(".npz"):
        raise SmaltiError(f"--out must end in .npz, not {out!r}")
    model = Autoencoder.from_pretrained(run, device=device)
    bottleneck = model.codes_bottleneck
    images_in = ImageFiles(images, model.config.preprocessing.channels)
    names: list[str] = []
    encoded = []
    for files, batch in images_in.chunks("encoding"):
        for file in files:
            names.append(str(unused(Path(file.name), names)))
        encoded += model.encode_many(batch)
    write_codes(Path(out), names, encoded, model.source_hash, bottleneck.codebook_size)
    num_codes = sum(item.codes.numel() for item in encoded)
    return {
        "written": out,
        "num_images": len(names),
        "num_codes": num_codes,
        "codebook_size": bottleneck.codebook_size,
        "grids": {name: list(item.codes.shape) for name, item in zip(names, encoded, strict=True)},
        "bad_images": images_in.bad,
    }


def decode(run: str, codes: str, *, out: str, device: str = "cpu") -> dict[str, Any]:
    """Turn the codes of `smalti encode` back into PNG pictures of the original sizes.

    Args:
        run: the folder of the model that made the codes.
        codes: the npz file.
        out: the folder for the pictures.
        device: cpu, cuda, ...
    """
    from smalti.apps.codefile import read_codes
    from smalti.apps.imagefiles import progress_bar, unused
    from smalti.images import to_pil
    from smalti.models.autoencoder import Autoencoder

    model = Autoencoder.from_pretrained(run, device=device)
    written: list[str] = []
    for name, item in progress_bar(read_codes(Path(codes), model.source_hash), "decoding"):
        target = unused(Path(out) / f"{Path(name).stem}.png", written)
        with atomic_path(target) as temporary:
            to_pil(model.decode_many([item])[0])[0].save(temporary)
        written.append(str(target))
    return {"written": written}


def info(target: str) -> dict[str, Any]:
    """Say what a run, a compressed file, a file of codes or a data set is.

    Args:
        target: the folder of a model, a .smalti file, an npz file of codes, or what --data takes.
    """
    path = Path(target)
    if path.suffix == ".smalti":
        from smalti.apps.pack import describe

        return describe(path)
    if path.suffix == ".npz":
        from smalti.apps.codefile import describe_codes

        return describe_codes(path)
    if (path / "config.json").exists():
        return _describe_run(path)
    from smalti.data.sources import SPLITS, open_data

    source = open_data(target)
    counts = {}
    for split in SPLITS[:-1]:
        try:
            counts[split] = len(open_data(target, split))
        except SmaltiError:
            counts[split] = 0
    height, width, _ = source.read(0).shape
    return {
        "data": target,
        "num_images": len(source),
        "splits": counts,
        "channels": source.channels,
        "first_image": f"{source.name_of(0)} ({width}x{height})",
        "labels": {kind: len(set(labels)) for kind, labels in source.labels.items()},
        "caption_languages": sorted({language for row in source.captions for language in row}),
    }


def _describe_prior(run: Path) -> dict[str, Any]:
    from smalti.priors.code_model import CodeModel

    model = CodeModel.from_pretrained(run)
    config = model.config
    result: dict[str, Any] = {
        "run": str(run),
        "num_parameters": model.num_parameters,
        "prior": dict(config.prior),
        "codebook_size": config.codebook_size,
        "grid": list(config.grid),
        "tokenizer": config.tokenizer,
        "tokenizer_hash": config.tokenizer_hash,
        "labels": list(config.labels),
        "text": list(config.text.languages) if config.text else [],
        "causal": model.prior.causal,
        "model_hash": model.source_hash,
    }
    if (run / "evaluation.json").exists():
        result["evaluation"] = read_json(run / "evaluation.json")["metrics"]
    return result


def _describe_run(run: Path) -> dict[str, Any]:
    if what_is(str(run)) == "prior":
        return _describe_prior(run)
    from smalti.models.autoencoder import Autoencoder

    model = Autoencoder.from_pretrained(run)
    result: dict[str, Any] = {
        "run": str(run),
        "num_parameters": model.num_parameters,
        "bottleneck": dict(model.config.bottleneck),
        "networks": dict(model.config.networks),
        "likelihood": dict(model.config.likelihood),
        "image_size": model.config.preprocessing.image_size,
        "stride": model.stride,
        "model_hash": file_hash(run / "model.safetensors"),
    }
    checkpoints = sorted((run / "checkpoints").glob("step-*.safetensors"))
    if checkpoints and (run / "experiment.json").exists():
        done = int(checkpoints[-1].stem.removeprefix("step-"))
        result["trained"] = f"{done} of {_experiment(run, Experiment).steps} steps"
    if (run / "evaluation.json").exists():
        result["evaluation"] = read_json(run / "evaluation.json")["metrics"]
    return result


def as_text(verb: str, result: dict[str, Any]) -> str:
    """A verb's result for a person."""
    from smalti.evaluate.card import format_number

    lines = []
    if verb == "evaluate":
        lines.append(f"{result['num_images']} images of the {result['split']} split of {result['data']}")
    shown = result.get("metrics", result)
    width = max((len(name) for name in shown if name != "written"), default=0)
    for name, value in shown.items():
        if name == "written" or value in ({}, []):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_short(item)}" for key, item in value.items())
        lines.append(f"  {name:<{width}}  {format_number(value) if isinstance(value, float) else _short(value)}")
    written = result.get("written", [])
    for path in [written] if isinstance(written, str) else written[:12]:
        lines.append(f"wrote {path}")
    if isinstance(written, list) and len(written) > 12:
        lines.append(f"and {len(written) - 12} more")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return (
            " x ".join(map(str, value)) if all(isinstance(item, int) for item in value) else ", ".join(map(str, value))
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)
