"""The verb `info`: what a run, a compressed file, a file of codes or latents, or a data set is."""

import contextlib
from pathlib import Path
from typing import Any

from smalti.apps.compress import SUFFIX, sizes_of
from smalti.apps.runs import best_of, experiment_of, what_is
from smalti.data.splits import SPLITS
from smalti.errors import SmaltiError
from smalti.files import CONFIG, read_json


def info(target: str) -> dict[str, Any]:
    """Describe a run, a compressed file, a file of codes or latents, or a data set.

    Args:
        target: the folder of a model, a .smalti file, a file of `smalti encode`, or what --data takes.
    """
    path = Path(target)
    if path.suffix == SUFFIX:
        return _describe_archive(path)
    if path.suffix in (".npz", ".parquet") and (described := _describe_encoded(path)):
        return described
    if (path / CONFIG).exists():
        return _describe_run(path)
    from smalti.data.sources import open_data

    source, counts = open_data(target), dict.fromkeys(SPLITS[:-1], 0)
    for split in counts:
        with contextlib.suppress(SmaltiError):  # an empty split is one
            counts[split] = len(open_data(target, split))
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


def _describe_encoded(path: Path) -> dict[str, Any]:
    """What a file of codes or latents holds; nothing of a parquet file of images."""
    from smalti.apps.encodedfile import is_encoded, read_encoded

    if not is_encoded(path):
        return {}
    file = read_encoded(path)
    return {"file": str(path), **file.describe(), "model_hash": file.model_hash, "num_bytes": path.stat().st_size}


def _describe_archive(path: Path) -> dict[str, Any]:
    """What a .smalti file holds, read from its header alone."""
    from smalti.codec import Archive

    with Archive.open(path) as archive:
        header, sizes = archive.header, {(entry.width, entry.height) for entry in archive.header.images}
        return {
            "file": str(path),
            **sizes_of(archive),
            "sizes": [f"{width}x{height}" for width, height in sorted(sizes)[:12]],
            "kinds": sorted({entry.mode for entry in header.images}),
            "names": [entry.name for entry in header.images[:12] if entry.name],
            "lossless": header.lossless,
            "codebook_size": header.codebook_size,
            "codes_at_a_position": header.depth,
            "pixels_per_code": header.stride,
            "num_chunks": len(archive.chunks),
            "model_hash": header.model_hash,
            "prior_hash": header.prior_hash,
        }


def _describe_run(run: Path) -> dict[str, Any]:
    if what_is(str(run)) == "prior":
        from smalti.priors.code_model import CodeModel

        model = CodeModel.from_pretrained(run)
        config = model.config
        own = {
            "prior": dict(config.prior),
            "codebook_size": config.codebook_size,
            "grid": list(config.grid),
            "tokenizer": config.tokenizer,
            "tokenizer_hash": config.tokenizer_hash,
            "labels": list(config.labels),
            "text": list(config.text.languages) if config.text else [],
            "causal": model.prior.causal,
        }
    else:
        from smalti.models.autoencoder import Autoencoder

        model = Autoencoder.from_pretrained(run)
        own = {name: dict(getattr(model.config, name)) for name in ("bottleneck", "networks", "likelihood")}
        own |= {**model.config.preprocessing.in_words, "stride": model.stride}
        if (corruption := model.config.corruption).noise != "none":
            own["trained_noise"] = str(corruption)
    result = {"run": str(run), "num_parameters": model.num_parameters, **own, "model_hash": model.source_hash}
    checkpoints, experiment = sorted((run / "checkpoints").glob("step-*.safetensors")), experiment_of(run)
    if experiment:
        result["trained_on"] = str(experiment.data)
    if checkpoints and experiment:
        done = int(checkpoints[-1].stem.removeprefix("step-"))
        result["trained"] = f"{done} of {experiment.run.steps} steps"
    if best := best_of(run):
        result["holds"] = f"step {best['step']}, the best by validation_loss ({best['validation_loss']:.6g})"
    if (run / "evaluation.json").exists():
        result["evaluation"] = read_json(run / "evaluation.json")["metrics"]
    return result
