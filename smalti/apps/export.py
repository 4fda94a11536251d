"""The verb `export`."""

from pathlib import Path
from typing import Any, Literal

from smalti.errors import SmaltiError
from smalti.files import CONFIG, atomic_folder, read_json


def export(run: str, *, format: Literal["diffusers"], out: str, force: bool = False) -> dict[str, Any]:
    """Write a trained autoencoder in the format of another project.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        format: diffusers: a folder for VQModel.from_pretrained, of vqgan networks.
        out: the folder.
        force: replace what an export has written there.
    """
    from smalti.interop import diffusers
    from smalti.models.autoencoder import Autoencoder

    write, names = {"diffusers": (diffusers.write, diffusers.FILES)}[format]
    folder = _folder(out, force, names)
    model = Autoencoder.from_pretrained(run)
    with atomic_folder(folder) as temporary:
        found = write(model, temporary)
    return {"run": run, **found, "written": [str(folder / name) for name in names]}


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
