"""A data set as codes: made once by its tokenizer, kept in the run's folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from smalti.data.batches import Pixels
from smalti.data.sources import Split, open_data
from smalti.errors import SmaltiError
from smalti.files import read_tensors, write_tensors
from smalti.models.autoencoder import Autoencoder
from smalti.pixels import to_float
from smalti.priors.config import PriorConfig


class Codes(NamedTuple):
    """The codes of a split's images, and their classes."""

    codes: Tensor  # (N, h, w) int64
    classes: Tensor | None  # (N,) int64, for a conditional prior


def load_codes(config: PriorConfig, data: str, split: Split, cache: Path | None, progress: bool = False) -> Codes:
    """The codes of a split under the prior's tokenizer, from the cache where it has them.

    Args:
        config: of the prior; names the tokenizer and the classes.
        data: as for `smalti.open_data`.
        split: the part to take.
        cache: a folder for codes-SPLIT.safetensors; None makes them anew.
        progress: show a bar while reading images.

    Raises:
        SmaltiError: another tokenizer than the prior's, no such data, or images without the prior's kind of label.
    """
    key = json.dumps([config.tokenizer_hash, data, split, config.label_kind, list(config.labels)])
    path = cache / f"codes-{split}.safetensors" if cache else None
    if path and path.exists():
        tensors, metadata = read_tensors(path)
        if metadata.get("key") == key:
            return Codes(tensors["codes"].long(), tensors["classes"] if config.labels else None)
    codes, classes = _encode(config, data, split, progress)
    if path:
        stored = {"codes": codes.int(), **({"classes": classes} if classes is not None else {})}
        write_tensors(path, stored, {"smalti": "codes", "key": key})
    return Codes(codes, classes)


def _encode(config: PriorConfig, data: str, split: Split, progress: bool) -> tuple[Tensor, Tensor | None]:
    tokenizer = Autoencoder.from_pretrained(config.tokenizer)
    config.check_tokenizer(tokenizer.source_hash)
    source, preprocessing = open_data(data, split), tokenizer.config.preprocessing
    pixels = Pixels(source, preprocessing.image_size, preprocessing.channels, progress=progress)
    codes = torch.cat([tokenizer.encode(to_float(batch)).cpu() for batch in pixels.in_order(256)])
    if not config.labels:
        return codes, None
    if pixels.bad:
        raise SmaltiError(f"{data}: {len(pixels.bad)} bad images; remove them to train with labels: {pixels.bad[0]}")
    return codes, torch.tensor(config.classes(labels_of(data, split, config.label_kind)))


def labels_of(data: str, split: Split, kind: str) -> Sequence[str]:
    """The label of each image of a split.

    Raises:
        SmaltiError: the data has no labels of this kind.
    """
    source = open_data(data, split)
    if kind not in source.labels:
        known = ", ".join(source.labels) or "none"
        raise SmaltiError(f"{data} has no labels of the kind {kind!r}; it has: {known}")
    return [source.labels[kind][index] for index in source.indices]
