"""Streams of the Hugging Face hub: `hf:NAME`, read by the library `datasets`."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from smalti.data.source import file_stamp
from smalti.data.splits import split_by_name, split_of_value
from smalti.data.streams import Example, Part, Stream, number_of
from smalti.data.tables import captions_in, kinds_of, numbered
from smalti.errors import SmaltiError, reason
from smalti.images.errors import BadImage
from smalti.images.folders import shown
from smalti.images.reading import read_pixels

PREFIX = "hf:"


def is_hub(text: str) -> bool:
    """Whether a name is one of the hub."""
    return text.startswith(PREFIX)


def stream_hub(text: str) -> Stream:
    """The images of a data set of the hub, "hf:NAME" or "hf:NAME:CONFIG": a part for each of its files.

    Raises:
        SmaltiError: no such data set, none with images, or `datasets` is missing.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SmaltiError(f"{shown(text, 100)}: the hub needs datasets: pip install 'smalti[streams]'") from error
    name, _, config = text.removeprefix(PREFIX).partition(":")
    try:
        revision = None if os.path.isdir(name) else _revision(name)
        splits = datasets.load_dataset(name, config or None, revision=revision, streaming=True)
    except Exception as error:  # the library's errors share no base class
        raise SmaltiError(f"{shown(text, 100)}: cannot be opened ({shown(reason(error), 160)})") from error
    parts = [part for split, data in splits.items() for part in _parts(text, str(split), data)]
    return Stream(text, parts, lambda: _stamps(name, config, revision))


def _revision(name: str) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(name).sha)


def _stamps(name: str, config: str, revision: str | None) -> Iterator[tuple[str, str]]:
    """The commit on the hub; of a folder here its files."""
    if revision is not None:
        yield f"{PREFIX}{name}:{config}", revision
        return
    files = sorted(path for path in Path(name).rglob("*") if path.is_file())
    for path in files:
        yield path.relative_to(name).as_posix(), file_stamp(path)


def _parts(text: str, split: str, data: Any) -> Iterator[Part]:
    """A part for each file of a split."""
    import datasets  # pyright: ignore[reportMissingImports]

    features = data.features or {}
    found = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if not found:
        raise SmaltiError(f"{shown(text, 100)}: no column of images; it has {shown(', '.join(features), 100)}")
    raw = data.cast_column(found[0], datasets.Image(decode=False))
    for number in range(data.num_shards):
        name = f"{split}-{number:05}"
        yield Part(name, partial(_examples, raw.shard(data.num_shards, number), name, split, found[0], features))


def _examples(data: Any, name: str, split: str, column: str, features: Any, start: int) -> Iterator[Example]:
    kinds = kinds_of([own for own in features if own != column])
    label = features.get(kinds.get("label"))
    try:
        named = split_of_value(split, name) or ""
    except SmaltiError:  # of another name
        named = ""
    for row, cells in enumerate(data.skip(start) if start else data, start):
        key, value = f"{name}#{row}", cells.get(kinds.get("label"))
        as_text = getattr(label, "int2str", str)
        yield Example(
            key=key,
            read=partial(_read, cells[column], key),
            number=number_of(key),
            split=named or split_by_name(key),
            label="" if value is None else str(as_text(value)),
            caption=next(iter(numbered(captions_in(cells.get(kinds.get("text")))).values()), ""),
        )


def _read(cell: Any, key: str, reading: Any) -> Any:
    file = cell and (cell.get("bytes") or cell.get("path"))
    if not file:
        raise BadImage(f"{key}: the image column holds no bytes")
    return read_pixels(file, reading, key)
