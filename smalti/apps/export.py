"""The verb `export`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from smalti.apps.runs import what_is
from smalti.configs import effective
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import CONFIG, atomic_folder, read_json


def export(
    run: str,
    *,
    format: Literal["diffusers", "onnx", "html"],
    out: str,
    data: str | None = None,
    split: Split | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a trained model in the format of another project, or as a page.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        format: diffusers: a folder for VQModel.from_pretrained, of vqgan networks. onnx: graphs from images to codes
            and from codes to images, or from codes to a prior's logits. html: the studio, a page that holds the model
            and opens without a network, see docs/studio.md.
        out: the folder.
        data: of html: emoji, a folder of images or of idx files, or *.parquet, in which the page says how often each
            code occurs.
        split: of the data: train, validation, test or all.
        force: replace what an export has written there.
    """
    from smalti.data.sources import open_data
    from smalti.evaluation.autoencoders import count_codes
    from smalti.interop import diffusers, onnx
    from smalti.models.autoencoder import Autoencoder
    from smalti.priors.code_model import CodeModel
    from smalti.studio import page

    formats: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
        "diffusers": (diffusers.write, diffusers.FILES),
        "onnx": (onnx.write, onnx.FILES),
        "html": (partial(page.write, title=Path(run).name), page.FILES),
    }
    write, names = formats[format]
    effective(format == "html", f"with --format {format}", data=(data, None))
    part = effective(bool(data), "without --data", split=(split, "all"))
    folder, more = _folder(out, force, names), {}
    if what_is(run) != "prior":
        model = Autoencoder.from_pretrained(run)
        if data:
            more = {"counts": count_codes(model, open_data(data, **part))}
    elif format == "onnx":
        model = CodeModel.from_pretrained(run)
    else:
        raise SmaltiError(f"{run} is a prior, which --format onnx alone takes; give the run of a tokenizer")
    with atomic_folder(folder) as temporary:
        found = write(model, temporary, **more)
        written = [name for name in names if (temporary / name).exists()]
    for name in set(names) - {*written}:  # of an earlier export
        (folder / name).unlink(missing_ok=True)
    return {"run": run, **found, "written": [str(folder / name) for name in written]}


def _folder(out: str, force: bool, names: tuple[str, ...]) -> Path:
    """The folder to write to.

    Raises:
        SmaltiError: it is a file, holds a model of ours, other files, or those of an export without `force`.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise SmaltiError(f"{out} is a file; --out is a folder here")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if other := [name for name in held if name not in names]:
        raise SmaltiError(f"{out} holds {other[0]!r}, which is of no export; choose another --out")
    if CONFIG in held and "smalti" in read_json(folder / CONFIG):
        raise SmaltiError(f"{out} holds a model of smalti; choose another --out")
    if held and not force:
        raise SmaltiError(f"{out} holds an export; --force replaces it")
    return folder
