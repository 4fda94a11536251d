"""Opens data sets: `--data` as a `Source` of images with their names, labels and captions.

`emoji` (bundled) | a folder of images | a folder of MNIST-style idx files | *.parquet | *.tar. A source is a list:
images are read lazily. Its splits are deterministic, see `smalti.data.splits`; validation and test images may be data
of their own, see `DataConfig`. `open_stream` opens the same, and what can only be read in order, as a stream.
"""

import os
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from smalti.data.code_shards import has_codes
from smalti.data.codes import open_codes
from smalti.data.config import EMOJI, Data, DataConfig
from smalti.data.emoji import read_table, read_tile
from smalti.data.folders import open_folder
from smalti.data.hub import is_hub, stream_hub
from smalti.data.idx import idx_files, open_idx
from smalti.data.parquet import open_parquet
from smalti.data.parquet_stream import stream_parquet
from smalti.data.places import is_address
from smalti.data.source import Source, concatenated
from smalti.data.splits import SPLITS, Split, Splits, notes_on
from smalti.data.streams import Stream, of_split, stream_of
from smalti.data.tars import is_tar, open_tars, stream_tars
from smalti.errors import SmaltiError
from smalti.images.folders import shown
from smalti.images.reading import pixels_as


def open_data(data: Data, split: Split = "all") -> Source:
    """Open the data set that `--data` names, with those of `--validation` and `--test`.

    Args:
        data: "emoji", a folder (images or idx files), or a parquet file or pattern; or a `DataConfig`.
        split: the part to take; "all" is the union of the others.

    Raises:
        SmaltiError: no such data, nothing in it, or an empty split.
    """
    if split not in SPLITS:
        raise SmaltiError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    config = DataConfig.of(data)
    source = _open_parts(config)
    splits = [*source.splits]
    indices = [index for index, of in enumerate(splits) if of is not None and split in ("all", of)]
    if not indices:
        if not splits:
            raise SmaltiError(f"{config}: no images in it; give other data")
        counts = ", ".join(f"{name} {splits.count(name)}" for name in SPLITS[:-1])
        raise SmaltiError(f"{config}: no images in the {split} split ({counts}); choose another with --split")
    return replace(source, name=str(config), split=split, indices=indices)


def open_stream(data: str, split: Split = "all") -> Stream:
    """Open what `--data` names as a stream: what `open_data` takes, tar files of any kind, addresses, and hf:NAME.

    Raises:
        SmaltiError: no such data, or nothing in it.
    """
    stream = None
    if is_hub(data):
        stream = stream_hub(data)
    elif is_tar(data) and not os.path.isdir(data):
        stream = stream_tars(data)
    elif data.endswith(".parquet") and not os.path.isdir(data) and (split == "all" or is_address(data)):
        stream = stream_parquet(data)
    if stream is None:
        return stream_of(open_data(data, split))
    return stream if split == "all" else of_split(stream, split)


def _open(text: str) -> tuple[Source, Splits]:
    """The whole of one data set, and its splits."""
    if text == EMOJI:
        return _open_emoji()
    if text.endswith(".parquet") and not os.path.isdir(text):
        return open_parquet(text)
    if is_tar(text) and not os.path.isdir(text) and not is_address(text):
        return open_tars(text)
    if is_hub(text) or is_address(text):
        remedy = "turn it into codes with smalti tokenize, or copy it here"
        raise SmaltiError(f"{shown(text, 100)} can only be read in order: {remedy}")
    if not text or not os.path.isdir(text):  # no name is not the folder one happens to be in
        hint = "a file was given; give its folder" if os.path.exists(text) else "no such folder"
        name = shown(text, 100) or "no name"
        kinds = "'emoji', a folder of images or of idx files, *.parquet or *.tar"
        raise SmaltiError(f"{name}: {hint}. Data is {kinds}")
    if has_codes(text):
        return open_codes(Path(text))
    return open_idx(Path(text)) if idx_files(Path(text)) else open_folder(Path(text))


def _open_parts(config: DataConfig) -> Source:
    """The data that a record names, as one, with the split of each image; None is in no split."""
    first, splits = _open(config.data)
    own, reasons = splits.beside(config.elsewhere)
    first = replace(first, notes=[*first.notes, *notes_on(splits, config.elsewhere)])
    parts, chosen = [first], [own]
    for split, text in config.elsewhere.items():
        parts.append(_open(text)[0])
        chosen.append([split] * len(parts[-1].names))
        reasons += [f"--{split}"] * len(parts[-1].names)
    if len(parts) == 1:
        return replace(first, splits=own, reasons=reasons)
    _leave_out_twins([config.data, *config.elsewhere.values()], parts, chosen)
    return replace(concatenated(parts), splits=[split for part in chosen for split in part], reasons=reasons)


def _leave_out_twins(texts: Sequence[str], parts: Sequence[Source], chosen: Sequence[list[str | None]]) -> None:
    """Take an image that several parts hold out of all but the last: no test image is trained on."""
    holders: dict[Hashable, str] = {}
    for text, part, splits in reversed([*zip(texts, parts, chosen, strict=True)]):
        identities = [part.identity(index) for index in range(len(splits))]
        twins = [index for index, image in enumerate(identities) if splits[index] and image in holders]
        for index in twins:
            splits[index] = None
        others = " and ".join(dict.fromkeys(holders[identities[index]] for index in twins))
        if twins and not any(splits):
            raise SmaltiError(f"{text}: nothing is left, for all of its images are in {others} too; give other data")
        if twins:
            warnings.warn(f"{text}: left out {len(twins)} images that are in {others} too", stacklevel=1)
        holders.update(dict.fromkeys(identities, text))


def _open_emoji() -> tuple[Source, Splits]:
    rows = read_table()["rows"]
    source = Source(
        reader=lambda index, reading: pixels_as(read_tile(index), reading, f"emoji:{index}"),
        names=[row["emoji"] for row in rows],
        identity=lambda index: ("emoji", index),
        stamp=lambda _: "bundled",
        labels={kind: [row[kind] for row in rows] for kind in ("group", "subgroup")},
        captions=[row["captions"] for row in rows],
    )
    splits = [row["split"] for row in rows]
    return source, Splits(splits, splits, ["a hash of the concept"] * len(rows))
