"""The file between `smalti encode` and `smalti decode`: codes or latents, original sizes, and whose they are.

npz, an array an image: `codes/NAME` (uint16 or uint32 grid) or `latents/NAME` (float32, (D, h, w), pooled (D,)), and
`size/NAME` (H, W); then `model_hash`, and `codebook_size` of codes, `version` and `pool` of latents; `labels/KIND`, a
text an image, where the images are those of a data set.

parquet, a row an image: `name`, a column of texts for each kind of label, `height`, `width`, `shape`, and `codes` or
`latents`, flattened; the rest is JSON under `smalti` in the metadata of the schema.

npy and jsonl, for other programs: see `smalti.apps.plaincodes`.

A file may be anybody's, see `smalti.apps.encodedrecord`.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from smalti.apps import plaincodes
from smalti.apps.encodedrecord import VERSION, EncodedFile, Kind, checked
from smalti.apps.npzarrays import NpzArrays
from smalti.apps.outfiles import new_file
from smalti.apps.parquetrows import ParquetRows, library
from smalti.configs import fit
from smalti.errors import SmaltiError, one_line, shown
from smalti.files import atomic_path

COLUMNS = ("name", "height", "width", "shape")  # of a parquet file, beside the labels and the values
MOST_LABELS = 1 << 26  # bytes of the texts of one kind of label


def check_suffix(path: str | Path) -> None:
    """Raise unless a file of this name can be written and read."""
    if Path(path).suffix not in SUFFIXES:
        raise SmaltiError(f"a file of codes or latents must end in {' or '.join(SUFFIXES)}, not {str(path)!r}")


def new_files_of(out: str, force: bool) -> None:
    """Raise unless a file of this name, and what comes beside it, can be written; see `new_file`."""
    path = new_file(out, force, *SUFFIXES)
    if path.suffix == ".npy":
        new_file(plaincodes.beside(path), force)


def write_encoded(path: Path, file: EncodedFile) -> None:
    """Write codes or latents in the form that the suffix says, atomically.

    Raises:
        SmaltiError: another suffix, no pyarrow for parquet, no place, or what the form does not hold.
    """
    check_suffix(path)
    FORMS[path.suffix].write(path, file)


def read_encoded(path: Path, model_hash: str | None = None) -> EncodedFile:
    """Read a file of codes or latents.

    Args:
        path: ending as one of `SUFFIXES`.
        model_hash: of the model that they have to be of; None takes those of any.

    Raises:
        SmaltiError: no such file, damaged, or of another model.
    """
    check_suffix(path)
    if not path.is_file():
        raise SmaltiError(f"{path} does not exist")
    file = FORMS[path.suffix].read(path)
    if model_hash not in (None, file.model_hash):
        whose = f"of the model {file.model_hash[:12]}, not of this one, {str(model_hash)[:12]}"
        raise SmaltiError(f"{path} holds {file.kind} {whose}; give that model")
    return file


def is_encoded(path: Path) -> bool:
    """Whether a file claims to be one of `smalti encode`: no parquet of images, and no array that is one."""
    if path.suffix == ".npy":
        return plaincodes.beside(path).is_file()
    if path.suffix != ".parquet":
        return path.suffix in SUFFIXES
    try:
        return path.is_file() and b"smalti" in (library().read_schema(path).metadata or {})
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
    arrays = NpzArrays(path)
    kind: Kind = "latents" if "pool" in arrays else "codes"
    if "model_hash" not in arrays or (kind == "codes" and "codebook_size" not in arrays):
        raise SmaltiError(f"{path} is not a file of `smalti encode`: it does not name its model")
    names = [name.removeprefix(f"{kind}/") for name in arrays if name.startswith(f"{kind}/")]
    headers = [arrays.header(f"{kind}/{name}") for name in names]
    for name, header in zip(names, headers, strict=True):
        if header.dtype not in ((np.dtype("u2"), np.dtype("u4")) if kind == "codes" else (np.dtype("f4"),)):
            raise SmaltiError(f"{path} is not a file of `smalti encode`: {shown(name)} has {kind} of {header.dtype}")
    about = {
        key: arrays.array(key).tolist() for key in ("model_hash", "codebook_size", "version", "pool") if key in arrays
    }
    sizes = [arrays.array(f"size/{name}").tolist() for name in names]
    labels = {key: arrays.array(key, MOST_LABELS).tolist() for key in arrays if key.startswith("labels/")}
    known = {*about, *labels, *(f"{part}/{name}" for name in names for part in (kind, "size"))}
    if foreign := [key for key in arrays if key not in known]:
        raise SmaltiError(f"{path} is not a file of `smalti encode`: it has {shown(foreign[0])}")

    def read(index: int) -> np.ndarray:
        return arrays.array(f"{kind}/{names[index]}", prod(headers[index].shape) * headers[index].dtype.itemsize)

    labels = {key.removeprefix("labels/"): texts for key, texts in labels.items()}
    shapes = [header.shape for header in headers]
    return checked(path, {"kind": kind, "version": VERSION, **about}, names, sizes, shapes, read, labels)


def _write_parquet(path: Path, file: EncodedFile) -> None:
    parquet = library()
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
    with one_line(path, f"{path} is not a file of `smalti encode`"):
        rows = ParquetRows(path)
        about = rows.about
        kind = fit(Kind, about.get("kind"), "kind")
        columns = {name: rows.column(name) for name in rows.names if name != kind}
        sizes = list(zip(columns.pop("height"), columns.pop("width"), strict=True))
        names, shapes = columns.pop("name"), [tuple(shape) for shape in columns.pop("shape")]
        return checked(path, about, names, sizes, shapes, rows.reader(kind, shapes), columns)


class Form(NamedTuple):
    """A kind of file."""

    write: Callable[[Path, EncodedFile], None]
    read: Callable[[Path], EncodedFile]


FORMS = {
    ".npz": Form(_write_npz, _read_npz),
    ".parquet": Form(_write_parquet, _read_parquet),
    ".npy": Form(plaincodes.write_array, plaincodes.read_array),
    ".jsonl": Form(plaincodes.write_lines, plaincodes.read_lines),
}
SUFFIXES = tuple(FORMS)
