"""The verb `info`: what a run, a compressed file, a file of codes or latents, a data set or this installation is."""

from pathlib import Path
from typing import Any

from smalti.apps.compress import SUFFIX, sizes_of
from smalti.apps.runs import best_of, experiment_of, kept_evaluation, what_is
from smalti.bundled import place_of
from smalti.data.config import EMOJI
from smalti.files import CONFIG


def info(target: str | None = None) -> dict[str, Any]:
    """Describe a run, a compressed file, a file of codes or latents, a data set, or this installation.

    Args:
        target: the folder of a model or a bundled name, a .smalti file, a file of `smalti encode`, or what --data takes
            (emoji is the name of both); without it the installation: version, commit, PyTorch, device, kernels and
            threads.
    """
    if target is None:
        return _describe_installation()
    path = Path(target)
    if path.suffix == SUFFIX:
        return _describe_archive(path)
    if path.suffix in (".npz", ".parquet", ".npy", ".jsonl") and (described := _describe_encoded(path)):
        return described
    folder, described = Path(place_of(target)), {}
    if (folder / CONFIG).exists():
        described = _describe_run(target, folder)
        if target != EMOJI or folder == path:
            return described
    from smalti.data.account import account_of
    from smalti.data.sources import open_data

    return {**described, "data": target, **account_of(open_data(target))}


def _describe_installation() -> dict[str, Any]:
    """The device that `--device auto` takes, and what the rest is computed with."""
    import torch

    from smalti.environment import HOME, environment

    return {**environment("cuda" if torch.cuda.is_available() else "cpu"), "installed_in": str(HOME)}


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
        header, kinds = archive.header, archive.kinds()
        sizes = {(kind.width, kind.height) for kind in kinds}
        return {
            "file": str(path),
            **sizes_of(archive),
            "sizes": [f"{width}x{height}" for width, height in sorted(sizes)[:12]],
            "kinds": sorted({kind.mode for kind in kinds}),
            "names": [entry.name for entry in header.images[:12] if entry.name],
            "lossless": header.lossless,
            "codebook_size": header.codebook_size,
            "codes_at_a_position": header.depth,
            "pixels_per_code": header.stride,
            "num_chunks": len(archive.chunks),
            "model_hash": header.model_hash,
            "prior_hash": header.prior_hash,
        }


def _describe_run(name: str, run: Path) -> dict[str, Any]:
    from smalti.training.state import checkpoints

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
    result = {"run": name, "num_parameters": model.num_parameters, **own, "model_hash": model.source_hash}
    done, experiment = [*checkpoints(run / "checkpoints")], experiment_of(run)
    if experiment:
        result["trained_on"] = str(experiment.data)
    if experiment and experiment.start:
        result["started_from"] = f"{experiment.start.model} ({experiment.start.hash[:12]})"
    if done and experiment:
        result["trained"] = f"{done[-1]} of {experiment.run.steps} steps"
    if best := best_of(run):
        result["holds"] = f"step {best['step']}, the best by validation_loss ({best['validation_loss']:.6g})"
    if evaluation := kept_evaluation(run):
        result["evaluation"] = evaluation["metrics"]
    return result
