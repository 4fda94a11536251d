"""The file between `smalti encode` and `smalti decode`: codes or latents, original sizes, and whose they are.

npz, an array an image: `codes/NAME` (uint16 or uint32 grid) or `latents/NAME` (float32, (D, h, w), pooled (D,)), and
`size/NAME` (H, W); then `model_hash`, and `codebook_size` of codes, `version` and `pool` of latents; `labels/KIND`, a
text an image, where the images are those of a data set.

parquet, a row an image: `name`, a column of texts for each kind of label, `height`, `width`, `shape`, and `codes` or
`latents`, flattened; the rest is JSON under `smalti` in the metadata of the schema.

A file may be anybody's. What it says of itself is checked when it is opened, against its headers; the values of an
image are read when they are used, and are then as large as the headers said.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from smalti.apps.npzarrays import NpzArrays
from smalti.apps.parquetrows import ParquetRows, library
from smalti.configs import fit
from smalti.errors import SmaltiError, one_line, shown
from smalti.files import atomic_path
from smalti.images.opening import LARGEST_PX
from smalti.ranges import CodebookSize, Range

if TYPE_CHECKING:
    from torch import Tensor

    from smalti.models.autoencoder import Autoencoder

Kind = Literal["codes", "latents"]
Pool = Literal["none", "mean"]
VERSION = 1
SUFFIXES = (".npz", ".parquet")
SHOWN = 12  # images whose shapes a description names
COLUMNS = ("name", "height", "width", "shape")  # of a parquet file, beside the labels and the values
MOST_LABELS = 1 << 26  # bytes of the texts of one kind of label
Side = Annotated[int, Range(1, LARGEST_PX)]


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
    values: "Sequence[Tensor]"
    sizes: Sequence[tuple[int, int]]
    model_hash: str
    codebook_size: int = 0
    pool: Pool = "none"
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Of the values."""
        return self.values.shapes if isinstance(self.values, Stored) else [tuple(own.shape) for own in self.values]

    @property
    def dtype(self) -> type[np.generic]:
        """Of the values as they are stored."""
        return np.float32 if self.kind == "latents" else np.uint16 if self.codebook_size <= 1 << 16 else np.uint32

    def describe(self) -> dict[str, Any]:
        """Its kind, counts, and the shapes of its first images, as JSON can hold them."""
        first = zip(self.names[:SHOWN], self.shapes, strict=False)
        own = {"codebook_size": self.codebook_size} if self.kind == "codes" else {"pool": self.pool}
        result = {
            "num_images": len(self.names),
            f"num_{'codes' if self.kind == 'codes' else 'values'}": sum(map(prod, self.shapes)),
            "kind": self.kind,
            **own,
            "grids": {name: list(shape) for name, shape in first},
        }
        return result | (
            {"labels": {kind: len(set(texts)) for kind, texts in self.labels.items()}} if self.labels else {}
        )


class Stored(Sequence["Tensor"]):
    """Values in a file, read and checked when they are asked for.

    Args:
        shapes: of each.
        read: gives the values of one, as they are stored.
        codebook_size: K of codes; 0 of latents.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], read: Callable[[int], np.ndarray], codebook_size: int):
        self.shapes, self._read, self._codebook_size = shapes, read, codebook_size

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        """The values of one image, or of several.

        Raises:
            SmaltiError: codes outside of [0, K), latents that are not finite, or a damaged file.
        """
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        values = self._read(range(len(self))[index])
        if self._codebook_size and values.size and int(values.max()) >= self._codebook_size:
            raise SmaltiError(f"codes must lie in [0, {self._codebook_size}); one is {int(values.max())}")
        if not self._codebook_size and not np.isfinite(values).all():
            raise SmaltiError("the file holds latents that are not finite; encode the images again")
        from torch import from_numpy

        return from_numpy(values.astype(np.int64 if self._codebook_size else np.float32))


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


def check_fits(file: EncodedFile, model: "Autoencoder", most_pixels: int | None = None) -> None:
    """Raise unless a model can decode what a file holds; by what the file says of itself, before memory is taken.

    Raises:
        SmaltiError: pooled latents, values of other shapes than the model gives to images of these sizes, another
            codebook, or an image of more than `most_pixels`.
    """
    if file.pool != "none":
        raise SmaltiError("the file holds pooled latents, which cannot be decoded; encode again without --pool")
    most = LARGEST_PX if most_pixels is None else most_pixels
    codes = model.codes_bottleneck if file.kind == "codes" else None
    if codes is not None and file.codebook_size != codes.codebook_size:
        raise SmaltiError(f"the file's codes are of {file.codebook_size}, the model's of {codes.codebook_size}")
    for name, shape, (height, width) in zip(file.names, file.shapes, file.sizes, strict=True):
        if height * width > most:
            raise SmaltiError(f"{shown(name)} has {width}x{height} pixels; at most {most:,} are decoded")
        grid = model.networks.grid_of(height, width)
        wanted = codes.grid_shape(*grid) if codes is not None else (model.bottleneck.out_channels, *grid)
        if shape != wanted:
            sizes = f"{shown(shape)} where {width}x{height} pixels have {wanted}"
            raise SmaltiError(f"{shown(name)} has {file.kind} of the shape {sizes}; the file is damaged")


def is_encoded(path: Path) -> bool:
    """Whether a file claims to be one of `smalti encode`: every npz, and no parquet of images."""
    if path.suffix == ".npz":
        return True
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
    return _checked(path, {"kind": kind, "version": VERSION, **about}, names, sizes, shapes, read, labels)


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
        return _checked(path, about, names, sizes, shapes, rows.reader(kind, shapes), columns)


def _checked(
    path: Path,
    about: Mapping[str, Any],
    names: Sequence[str],
    sizes: Sequence[Any],
    shapes: Sequence[tuple[int, ...]],
    read: Callable[[int], np.ndarray],
    labels: Mapping[str, Sequence[str]],
) -> EncodedFile:
    """The file, if what it says of itself makes sense."""
    with one_line(path, f"{path} is not a file of `smalti encode`"):
        version = fit(int, about.get("version"), "version")
        if version > VERSION:
            raise SmaltiError(f"version {version} of its format, this smalti reads {VERSION}; update smalti")
        if foreign := about.keys() - {"kind", "version", "model_hash", "codebook_size", "pool"}:
            raise SmaltiError(f"unknown key {shown(sorted(foreign)[0])}")
        kind = fit(Kind, about.get("kind"), "kind")
        codebook_size = fit(CodebookSize, about.get("codebook_size"), "codebook_size") if kind == "codes" else 0
        model_hash = fit(str, about.get("model_hash"), "model_hash")
        if len(model_hash) != 64 or not set(model_hash) <= set("0123456789abcdef"):
            raise SmaltiError(f"model_hash: expected 64 hexadecimal digits, got {shown(model_hash)}")
        pool: Pool = fit(Pool, about.get("pool", "none"), "pool")
        names = fit(list[str], names, "names")
        if len(set(names)) < len(names) or any("\0" in name for name in names):
            raise SmaltiError("two images have one name, or one has a NUL")
        fitted: list[tuple[int, int]] = []
        for name, size, shape in zip(names, sizes, shapes, strict=True):
            height, width = fit(tuple[Side, Side], size, f"size/{shown(name)}")
            fitted.append((height, width))
            fit(tuple[Side, ...], shape, f"shape of {shown(name)}")
            axes = {"codes": (1, 2, 3, 4), "latents": (1,) if pool == "mean" else (3,)}[kind]
            most = height * width * (1 << 10 if kind == "codes" else 1 << 20)
            if height * width > LARGEST_PX or len(shape) not in axes or prod(shape) > most:
                raise SmaltiError(f"{shown(name)}: {kind} of the shape {shown(shape)} of {width}x{height} pixels")
        for key, texts in labels.items():
            if len(fit(list[str], texts, f"labels/{shown(key)}")) != len(names):
                raise SmaltiError(f"{len(texts)} labels {shown(key)} of {len(names)} images")
    values = Stored(shapes, read, codebook_size)
    options = {"codebook_size": codebook_size, "pool": pool, "labels": labels}
    return EncodedFile(kind=kind, names=names, values=values, sizes=fitted, model_hash=model_hash, **options)
