"""Codes as other trainers read them: one array of all images with a JSON file beside it, or a line of JSON an image.

npy: codes (N, *grid) of the smallest unsigned type that holds K, or latents (N, D, h, w), pooled (N, D), float32, of
images whose grids are of one size. The rest is in NAME.json beside NAME.npy, with the hash of the array.

jsonl: an object an image: `name`, `codes` as nested lists, `height`, `width`, `labels` of a data set's, `codebook_size`
and `model_hash`.

What is read may be anybody's, see `smalti.apps.encodedrecord`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from smalti.apps.encodedrecord import VERSION, EncodedFile, checked
from smalti.configs import fit
from smalti.errors import SmaltiError, one_line, shown
from smalti.files import atomic_path, file_hash, read_json, write_text

TYPES = {"codes": ("uint8", "uint16", "uint32"), "latents": ("float32",)}
HASH = "array_sha256"
MOST_ABOUT = 1 << 28  # bytes of the JSON beside an array
MOST_LINE = 1 << 25  # bytes
NO_FILE = "is cut off or not a file of `smalti encode`"
KEYS = ("name", "codes", "height", "width", "labels", "codebook_size", "model_hash")


def beside(path: Path) -> Path:
    """The JSON file of an array."""
    return path.with_suffix(".json")


def write_array(path: Path, file: EncodedFile) -> None:
    """Write one array, and the rest beside it; each atomically, the array first.

    Raises:
        SmaltiError: values of several shapes.
    """
    shapes = sorted({tuple(shape) for shape in file.shapes})
    if len(shapes) != 1:
        what = f"{file.kind} of images of several sizes, as {shapes[0]} and {shapes[-1]}" if shapes else "nothing"
        raise SmaltiError(f"{path} cannot hold {what}: one array has one shape; name the file .npz or .parquet")
    size = file.codebook_size
    dtype = np.float32 if file.kind == "latents" else np.min_scalar_type(size - 1)
    with atomic_path(path) as temporary, temporary.open("wb") as opened:
        np.save(opened, np.stack([own.numpy().astype(dtype) for own in file.values]), allow_pickle=False)
    about = {"version": VERSION, "kind": file.kind, "model_hash": file.model_hash}
    about |= {"codebook_size": size} if file.kind == "codes" else {"pool": file.pool}
    images = {"names": list(file.names), "sizes": [*map(list, file.sizes)], "labels": dict(file.labels)}
    write_text(beside(path), json.dumps({**about, HASH: file_hash(path), **images}, ensure_ascii=False) + "\n")


def read_array(path: Path) -> EncodedFile:
    """Read what `write_array` wrote; the values stay in the file."""
    told = beside(path)
    with one_line(told, f"{told} {NO_FILE}"):
        about = fit(dict[str, Any], read_json(told, MOST_ABOUT), "it")
        names, sizes, labels = (about.pop(key, None) for key in ("names", "sizes", "labels"))
        wanted = fit(str, about.pop(HASH, None), HASH)
        names, labels = fit(list[str], names, "names"), fit(dict[str, list[str]], labels, "labels")
    with one_line(path, f"{path} {NO_FILE}"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if str(array.dtype) not in TYPES.get(about.get("kind", ""), ()):
            raise SmaltiError(f"values of the type {array.dtype}, which `smalti encode` does not write")
        if not array.ndim or len(array) != len(names):
            raise SmaltiError(f"an array of the shape {array.shape} where {told.name} names {len(names)} images")
        if file_hash(path) != wanted:
            raise SmaltiError(f"it is not the array that {told.name} beside it is of; copy both again")
    shapes = [array.shape[1:]] * len(names)
    return checked(path, about, names, fit(list[Any], sizes, "sizes"), shapes, array.__getitem__, labels)


def write_lines(path: Path, file: EncodedFile) -> None:
    """Write a line of JSON an image, atomically.

    Raises:
        SmaltiError: latents.
    """
    if file.kind != "codes":
        raise SmaltiError(f"{path} cannot hold latents: as text they are long; name the file .npy, .npz or .parquet")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as opened:
        for line in _lines(file):
            opened.write(json.dumps(line, ensure_ascii=False) + "\n")


def _lines(file: EncodedFile) -> Iterable[dict[str, Any]]:
    whose = {"codebook_size": file.codebook_size, "model_hash": file.model_hash}
    for index, (name, codes, (height, width)) in enumerate(zip(file.names, file.values, file.sizes, strict=True)):
        labels = {"labels": {kind: texts[index] for kind, texts in file.labels.items()}} if file.labels else {}
        yield {"name": name, "codes": codes.tolist(), "height": height, "width": width, **labels, **whose}


def read_lines(path: Path) -> EncodedFile:
    """Read what `write_lines` wrote; the codes stay in the file."""
    places: list[int] = []
    names, sizes, shapes = [], [], []
    labels: dict[str, list[str]] = {}
    whose: dict[str, Any] = {}
    with one_line(path, f"{path} {NO_FILE}"):
        for place, record in _records(path):
            own = {key: record.get(key) for key in ("codebook_size", "model_hash")}
            texts = fit(dict[str, str], record.get("labels", {}), "labels")
            whose, labels = whose or own, labels if places else {kind: [] for kind in texts}
            if own != whose or texts.keys() != labels.keys() or record.keys() - set(KEYS):
                raise SmaltiError(f"line {len(places) + 1} is of another kind than the first")
            for kind, text in texts.items():
                labels[kind].append(text)
            names.append(record["name"])
            sizes.append((record["height"], record["width"]))
            shapes.append(_codes_of(record).shape)
            places.append(place)
        if not places:
            raise SmaltiError("it has no lines")
    about = {"version": VERSION, "kind": "codes", **whose}
    return checked(path, about, names, sizes, shapes, _reader(path, places, shapes), labels)


def _reader(path: Path, places: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Callable[[int], np.ndarray]:
    def read(index: int) -> np.ndarray:
        with one_line(path, f"{path} {NO_FILE}"):
            return _codes_of(next(_records(path, places[index]))[1]).reshape(shapes[index])

    return read


def _records(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines from a place in the file, each with its place."""
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(MOST_LINE):
            if not line.endswith(b"\n"):
                raise SmaltiError(f"a line does not end, or has more than {MOST_LINE:,} bytes")
            yield file.tell() - len(line), fit(dict[str, Any], json.loads(line), "a line")


def _codes_of(record: dict[str, Any]) -> np.ndarray:
    codes = np.array(fit(list[Any], record["codes"], "codes"))
    if codes.dtype != np.int64 or not prod(codes.shape) or codes.min() < 0:
        raise SmaltiError(f"codes of {shown(record['name'])} are no grid of whole numbers from 0 on")
    return codes
