"""A folder of code shards as a data set: names, labels, captions and splits of its images, and codes in their place."""

from collections.abc import Hashable
from itertools import accumulate
from pathlib import Path

import numpy as np

from smalti.data.code_shards import CodeShards, Each
from smalti.data.source import Codes, Source
from smalti.data.splits import Splits, assign_splits
from smalti.errors import SmaltiError
from smalti.images.folders import shown
from smalti.images.preprocessing import Reading

LANGUAGE = "en"  # of captions, of which shards have one an image


def open_codes(folder: Path) -> tuple[Source, Splits]:
    """The rows of a folder of code shards, and their splits.

    Raises:
        SmaltiError: the folder is damaged.
    """
    shards = CodeShards(folder)
    about, keys, labels = shards.manifest.codes_of, shards.column("key"), shards.column("label")
    captions, splits = shards.column("caption"), [split or None for split in shards.column("split")]
    starts = [0, *accumulate(shard.rows for shard in shards.manifest.shards)]

    def row(index: int) -> tuple[str, int]:
        shard = int(np.searchsorted(starts, index, side="right")) - 1
        return shards.manifest.shards[shard].sha256, index - starts[shard]

    def identity(index: int) -> Hashable:
        return row(index)

    def read(index: int, reading: Reading) -> np.ndarray:
        remedy = "train or evaluate a prior, or give images"
        raise SmaltiError(f"{shown(str(folder), 100)} holds codes, no images: {remedy}")

    what = f"codes of the tokenizer {about.tokenizer_hash[:12]}, K = {about.codebook_size}"
    source = Source(
        reader=read,
        names=keys,
        identity=identity,
        stamp=lambda index: "{}#{}".format(*row(index)),
        labels={about.label_kind: Each(labels, lambda text: text or "")} if about.label_kind else {},
        captions=Each(captions, lambda text: {LANGUAGE: text} if text else {}) if any(captions) else (),
        notes=[f"{what}, {about.grid[0]}x{about.grid[1]} an image"],
        codes=Codes(about.tokenizer_hash, about.codebook_size, about.grid, shards.read_codes),
    )
    return source, assign_splits(keys, splits, ["the shards"] * len(keys), {*splits, "validation"})
