"""The npz file between `smalti encode` and `smalti decode`: codes, original sizes, and whose codes they are.

Members: `codes/NAME` (uint16 or uint32 grid) and `size/NAME` (H, W) for every image, `model_hash`, `codebook_size`.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti.errors import SmaltiError
from smalti.files import atomic_path
from smalti.models.autoencoder import Encoded


def write_codes(
    path: Path, names: Sequence[str], encoded: Sequence[Encoded], model_hash: str, codebook_size: int
) -> None:
    """Write the codes of named images, atomically."""
    small = np.uint16 if codebook_size <= 1 << 16 else np.uint32
    members: dict[str, np.ndarray] = {"model_hash": np.array(model_hash), "codebook_size": np.array(codebook_size)}
    for name, item in zip(names, encoded, strict=True):
        members[f"codes/{name}"] = item.codes.numpy().astype(small)
        members[f"size/{name}"] = np.array(item.size, dtype=np.int64)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **members)  # pyright: ignore[reportArgumentType]


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise SmaltiError(f"{path} does not exist")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            members = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # pyright: ignore
        raise SmaltiError(f"{path} is cut off or not a file of `smalti encode` ({error})") from error
    if "model_hash" not in members or "codebook_size" not in members:
        raise SmaltiError(f"{path} is not a file of `smalti encode`: it does not name its model")
    return members


def read_codes(path: Path, model_hash: str) -> list[tuple[str, Encoded]]:
    """The (name, codes) of all images in a file.

    Raises:
        SmaltiError: no such file, damaged, or the codes of another model.
    """
    members = _load(path)
    own = str(members["model_hash"])
    if own != model_hash:
        whose = f"of the model {own[:12]}, not of this one, {model_hash[:12]}"
        raise SmaltiError(f"{path} holds codes {whose}; give that model")
    result = []
    for name, codes in _codes(members).items():
        height, width = members[f"size/{name}"].tolist()
        result.append((name, Encoded(codes=torch.from_numpy(codes.astype(np.int64)), size=(height, width))))
    return result


def _codes(members: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("codes/"): codes for name, codes in members.items() if name.startswith("codes/")}


def describe_codes(path: Path) -> dict[str, Any]:
    """What a file of codes holds."""
    members = _load(path)
    codes = _codes(members)
    return {
        "file": str(path),
        "num_images": len(codes),
        "num_codes": sum(grid.size for grid in codes.values()),
        "codebook_size": int(members["codebook_size"]),
        "model_hash": str(members["model_hash"]),
        "num_bytes": path.stat().st_size,
        "grids": {name: list(grid.shape) for name, grid in codes.items()},
    }
