"""The file between `smalti encode` and `smalti decode`: codes or latents, original sizes, and whose they are.

npz, an array an image: `codes/NAME` (uint16 or uint32 grid) or `latents/NAME` (float32, (D, h, w), pooled (D,)), and
`size/NAME` (H, W); then `model_hash`, and `codebook_size` of codes, `version` and `pool` of latents; `labels/KIND`, a
text an image, where the images are those of a data set.

parquet, a row an image: `name`, a column of texts for each kind of label, `height`, `width`, `shape`, and `codes` or
`latents`, flattened; the rest is JSON under `smalti` in the metadata of the schema.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.files import atomic_path

Kind = Literal["codes", "latents"]
Pool = Literal["none", "mean"]
VERSION = 1
SUFFIXES = (".npz", ".parquet")
SHOWN = 12  # images whose shapes a description names
COLUMNS = ("name", "height", "width", "shape")  # of a parquet file, beside the labels and the values


@dataclass(frozen=True, kw_only=True)
class EncodedFile:
    """What a file holds, one entry an image in each list.

    Attributes:
        kind: of the values.
        names: of the images.
        values: codes (*grid) int64, latents (D, h, w) float32, or pooled latents (D,); on the CPU.
        sizes: (H, W) to crop the decoded images to.
        model_hash: of the model that made them.
        codebook_size: K; 0 of latents.
        pool: how latents became one vector an image.
        labels: label kind to texts; none of image files.
    """

    kind: Kind
    names: Sequence[str]
    values: Sequence[Tensor]
    sizes: Sequence[tuple[int, int]]
    model_hash: str
    codebook_size: int = 0
    pool: Pool = "none"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def dtype(self) -> type[np.generic]:
        """Of the values as they are stored."""
        return np.float32 if self.kind == "latents" else np.uint16 if self.codebook_size <= 1 << 16 else np.uint32

    def describe(self) -> dict[str, Any]:
        """Its kind, counts, and the shapes of its first images, as JSON can hold them."""
        first = zip(self.names[:SHOWN], self.values, strict=False)
        own = {"codebook_size": self.codebook_size} if self.kind == "codes" else {"pool": self.pool}
        result = {
            "num_images": len(self.names),
            f"num_{'codes' if self.kind == 'codes' else 'values'}": sum(own.numel() for own in self.values),
            "kind": self.kind,
            **own,
            "grids": {name: list(own.shape) for name, own in first},
        }
        return result | (
            {"labels": {kind: len(set(texts)) for kind, texts in self.labels.items()}} if self.labels else {}
        )


def check_suffix(path: str | Path) -> None:
    """Raise unless a file of this name can be written and read."""
    if Path(path).suffix not in SUFFIXES:
        raise SmaltiError(f"a file of codes or latents must end in {' or '.join(SUFFIXES)}, not {str(path)!r}")


def write_encoded(path: Path, file: EncodedFile) -> None:
    """Write codes or latents as npz or parquet, as the suffix says, atomically.

    Raises:
        SmaltiError: another suffix, no pyarrow for parquet, or no place.
    """
    check_suffix(path)
    (_write_parquet if path.suffix == ".parquet" else _write_npz)(path, file)


def read_encoded(path: Path, model_hash: str | None = None) -> EncodedFile:
    """Read a file of codes or latents.

    Args:
        path: ending in .npz or .parquet.
        model_hash: of the model that they have to be of; None takes those of any.

    Raises:
        SmaltiError: no such file, damaged, or of another model.
    """
    check_suffix(path)
    if not path.is_file():
        raise SmaltiError(f"{path} does not exist")
    file = (_read_parquet if path.suffix == ".parquet" else _read_npz)(path)
    if model_hash not in (None, file.model_hash):
        whose = f"of the model {file.model_hash[:12]}, not of this one, {str(model_hash)[:12]}"
        raise SmaltiError(f"{path} holds {file.kind} {whose}; give that model")
    return file


def is_encoded(path: Path) -> bool:
    """Whether a file claims to be one of `smalti encode`: every npz, and no parquet of images."""
    if path.suffix == ".npz":
        return True
    try:
        return path.is_file() and b"smalti" in (_parquet().read_schema(path).metadata or {})
    except (OSError, ValueError):  # an arrow error is a ValueError
        return False


def _write_npz(path: Path, file: EncodedFile) -> None:
    members: dict[str, np.ndarray] = {"model_hash": np.array(file.model_hash)}
    if file.kind == "codes":
        members["codebook_size"] = np.array(file.codebook_size)
    else:
        members |= {"version": np.array(VERSION), "pool": np.array(file.pool)}
    for name, own, size in zip(file.names, file.values, file.sizes, strict=True):
        members[f"{file.kind}/{name}"] = own.numpy().astype(file.dtype)
        members[f"size/{name}"] = np.array(size, dtype=np.int64)
    members |= {f"labels/{kind}": np.array(texts) for kind, texts in file.labels.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as opened:
        np.savez_compressed(opened, **members)  # pyright: ignore[reportArgumentType]


def _read_npz(path: Path) -> EncodedFile:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            members = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # pyright: ignore
        raise SmaltiError(f"{path} is cut off or not a file of `smalti encode` ({error})") from error
    kind: Kind = "latents" if "pool" in members else "codes"
    if "model_hash" not in members or (kind == "codes" and "codebook_size" not in members):
        raise SmaltiError(f"{path} is not a file of `smalti encode`: it does not name its model")
    _check_version(path, int(members.get("version", VERSION)))
    names = [name.removeprefix(f"{kind}/") for name in members if name.startswith(f"{kind}/")]
    return EncodedFile(
        kind=kind,
        names=names,
        values=[_as_tensor(kind, members[f"{kind}/{name}"]) for name in names],
        sizes=[tuple(members[f"size/{name}"].tolist()) for name in names],
        model_hash=str(members["model_hash"]),
        codebook_size=int(members.get("codebook_size", 0)),
        pool="mean" if str(members.get("pool", "none")) == "mean" else "none",
        labels={name.removeprefix("labels/"): own.tolist() for name, own in members.items() if name[:7] == "labels/"},
    )


def _write_parquet(path: Path, file: EncodedFile) -> None:
    parquet = _parquet()
    import pyarrow as arrow

    flat = np.concatenate([own.numpy().ravel() for own in file.values]).astype(file.dtype)
    counts, shapes = [own.numel() for own in file.values], [list(own.shape) for own in file.values]
    if len(set(counts)) == 1:
        column = arrow.FixedSizeListArray.from_arrays(arrow.array(flat), counts[0])
    else:
        column = arrow.ListArray.from_arrays(arrow.array(np.cumsum([0, *counts]), arrow.int32()), arrow.array(flat))
    columns = {"name": list(file.names), **{kind: list(texts) for kind, texts in file.labels.items()}}
    columns |= {
        "height": arrow.array([size[0] for size in file.sizes], arrow.int32()),
        "width": arrow.array([size[1] for size in file.sizes], arrow.int32()),
        "shape": arrow.array(shapes, arrow.list_(arrow.int32())),
        file.kind: column,
    }
    about = {"version": VERSION, "kind": file.kind, "model_hash": file.model_hash}
    about |= {"codebook_size": file.codebook_size} if file.kind == "codes" else {"pool": file.pool}
    table = arrow.table(columns).replace_schema_metadata({"smalti": json.dumps(about)})
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)


def _read_parquet(path: Path) -> EncodedFile:
    parquet = _parquet()
    try:
        table = parquet.read_table(path)
        own = json.loads((table.schema.metadata or {})[b"smalti"])
        _check_version(path, own["version"])
        kind, shapes = own["kind"], table["shape"].to_pylist()
        flat = table[kind].combine_chunks().flatten().to_numpy()
        parts = np.split(flat, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
        return EncodedFile(
            kind=kind,
            names=table["name"].to_pylist(),
            values=[_as_tensor(kind, part.reshape(shape)) for part, shape in zip(parts, shapes, strict=True)],
            sizes=list(zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True)),
            model_hash=own["model_hash"],
            codebook_size=own.get("codebook_size", 0),
            pool=own.get("pool", "none"),
            labels={name: table[name].to_pylist() for name in table.column_names if name not in (*COLUMNS, kind)},
        )
    except (OSError, ValueError, KeyError) as error:  # an arrow error is a ValueError
        raise SmaltiError(f"{path} is cut off or not a file of `smalti encode` ({error})") from error


def _as_tensor(kind: Kind, stored: np.ndarray) -> Tensor:
    """Codes are signed 64-bit integers everywhere but on disk."""
    return torch.from_numpy(stored.astype(np.int64 if kind == "codes" else np.float32))


def _check_version(path: Path, version: int) -> None:
    if version > VERSION:
        raise SmaltiError(f"{path} has version {version} of its format, this smalti reads {VERSION}; update smalti")


def _parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SmaltiError("parquet needs pyarrow: pip install 'smalti[data]'; or name the file *.npz") from error
    return parquet
