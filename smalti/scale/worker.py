"""What a worker does, whichever engine runs it: a unit of the data becomes shards of codes on disk, and nothing else.

A unit is small (a part of the data, and the first shard that is wanted of it), so that engines move no images and no
codes: the worker reads, decodes, resizes, encodes and writes. A shard is written to its end and then renamed; its
record is written after it. The same unit gives the same bytes whoever does it, and may be done twice.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from smalti.data.batches import binary, read_ahead, reading_threads
from smalti.data.code_shards import SHARDS, CodesOf
from smalti.data.sources import open_stream
from smalti.data.streams import Example
from smalti.errors import SmaltiError
from smalti.files import atomic_path, write_text
from smalti.generate.tokenizer import TrainedTokenizer
from smalti.images.errors import BadImage
from smalti.images.folders import storable
from smalti.images.pixels import to_float
from smalti.images.preprocessing import Preprocessing, Reading
from smalti.images.reading import fit, read_pixels
from smalti.images.remarks import Remarks
from smalti.models.autoencoder import Autoencoder
from smalti.ops.precision import Precision, arithmetic

WORK = ".work"  # in the folder, until it is complete
ROW_GROUP, COMPRESSION_LEVEL = 1024, 3


class Unit(NamedTuple):
    """A part of the data, and which of its shards: one, or all from it on where only reading tells how many."""

    part: int
    shard: int
    only: bool


class Done(NamedTuple):
    """What became of a unit: so many images and bad ones, or why it could not be done."""

    images: int = 0
    bad: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker has to know; it travels to other processes and machines.

    Attributes:
        run: the tokenizer.
        data: as it is named.
        out: the folder of the shards.
        codes_of: what decides them.
        batch_size: images at a time.
        device: of the tokenizer; "cuda" where each worker has a GPU of its own.
        threads: of torch, in a worker.
        before: called in a new process, as to run a user's own files.
    """

    run: str
    data: str
    out: str
    codes_of: CodesOf
    batch_size: int = 64
    device: str = "cpu"
    threads: int = 1
    before: Sequence[Callable[[], Any]] = ()


class Tokenizer:
    """A trained model as a function of batches: encoded images in, codes out; for the actor pools of Ray and Daft too.

    The codes of an image are the same in every batch.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        device: cpu, cuda, ...
        precision: of the encoder.
        preprocessing: by default that of the model.
    """

    def __init__(
        self, run: str, device: str = "cpu", precision: Precision = "fp32", preprocessing: Preprocessing | None = None
    ):
        self.own = TrainedTokenizer(Autoencoder.from_pretrained(run, device=device))
        self.preprocessing = preprocessing or self.own.preprocessing
        self.device = device
        self.precision: Precision = precision
        self.remarks = Remarks()
        reading = self.preprocessing.reading
        self.reading: Reading = replace(reading, at_least=self.preprocessing.size, remarks=self.remarks)
        small = np.min_scalar_type(self.own.codebook_size - 1)
        self.dtype = np.dtype(small)

    def __call__(self, batch: Mapping[str, Any], column: str = "image") -> dict[str, Any]:
        """The batch with its images as codes.

        Args:
            batch: name to column; that of images holds paths, or the bytes of files.
            column: of the images.

        Returns:
            The other columns, and "codes", (B, h * w) of the smallest unsigned type.

        Raises:
            BadImage: one of them cannot be read.
        """
        files = [bytes(file) if isinstance(file, memoryview | bytearray) else file for file in batch[column]]
        pixels = np.stack([self.pixels(read_pixels(file, self.reading), number) for number, file in enumerate(files)])
        rest = {name: values for name, values in batch.items() if name != column}
        return {**rest, "codes": self.encode(pixels)}

    def pixels(self, image: np.ndarray, number: int) -> np.ndarray:
        """An image uint8 (H, W, C) of any size as the model sees it; a binary one is sampled by its number."""
        fitted = fit(image, self.preprocessing.size)
        return fitted if self.preprocessing.binarize == "none" else binary(fitted, number)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """The codes (B, h * w) of uint8 (B, H, W, C), row-major."""
        with arithmetic(self.precision, self.device):
            codes = self.own.encode(to_float(torch.from_numpy(pixels)))
        return codes.flatten(1).cpu().numpy().astype(self.dtype)


class Worker:
    """Makes shards of codes, a unit at a time.

    Args:
        work: what is to be done.

    Raises:
        SmaltiError: the tokenizer here is another one.
    """

    def __init__(self, work: Work):
        for call in work.before:
            call()
        torch.set_num_threads(work.threads)
        self.work, self.codes_of, self.out = work, work.codes_of, Path(work.out)
        precision: Any = work.codes_of.precision
        self.tokenizer = Tokenizer(work.run, work.device, precision, work.codes_of.preprocessing)
        if (found := self.tokenizer.own.source_hash) != work.codes_of.tokenizer_hash:
            raise SmaltiError(f"{work.run} is the tokenizer {found[:12]} here, not {work.codes_of.tokenizer_hash[:12]}")
        split: Any = work.codes_of.split
        self.stream = open_stream(work.data, split)
        self.decoders = 1 if work.device == "cpu" else reading_threads()

    def __call__(self, unit: Unit) -> Done:
        """Do a unit, unless it has been done; an error that a user can cause is told, not raised."""
        try:
            images = bad = 0
            for record in self._shards(Unit(*unit)):
                images, bad = images + record["rows"], bad + len(record["bad"])
            return Done(images, bad)
        except SmaltiError as error:
            return Done(error=str(error))

    def _shards(self, unit: Unit) -> Iterator[dict[str, Any]]:
        rows, part = self.codes_of.rows_per_shard, self.stream.parts[unit.part]
        if record_of(self.out, unit.part, unit.shard):
            return
        examples = part.examples(unit.shard * rows)
        number, following = unit.shard, next(examples, None)
        while True:
            own = islice(chain([] if following is None else [following], examples), rows)
            record = self._write(unit.part, number, own)
            following = None if unit.only else next(examples, None)
            record["last"] = following is None if part.num_images is None else (number + 1) * rows >= part.num_images
            write_text(record_path(self.out, unit.part, number), json.dumps(record))
            yield record
            if following is None:
                return
            number += 1

    def _write(self, part: int, number: int, examples: Iterator[Example]) -> dict[str, Any]:
        """Write a shard; returns its record but for whether it is the last of its part."""
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        columns, codes, bad = [list[str]() for _ in range(4)], list[np.ndarray](), list[tuple[str, str]]()
        size = self.work.batch_size
        batches = iter(lambda: [*islice(examples, size)], [])
        for good, pixels, own_bad in read_ahead(self._decoded, batches, self.decoders):
            bad += own_bad
            if good:
                codes.append(self.tokenizer.encode(pixels))
            for values, column in zip(zip(*good, strict=True), columns, strict=False):
                column += values
        self.tokenizer.remarks.say()
        keys, splits, labels, captions = columns
        height, width = self.codes_of.preprocessing.size
        schema = self.codes_of.schema
        flat = np.concatenate(codes).reshape(-1) if codes else np.empty(0, self.codes_of.dtype)
        arrays = [
            arrow.array(keys, arrow.string()),
            arrow.FixedSizeListArray.from_arrays(arrow.array(flat), type=schema.field("codes").type),
            arrow.array(np.full(len(keys), height, np.int32)),
            arrow.array(np.full(len(keys), width, np.int32)),
            *(arrow.array([text or None for text in own], arrow.string()) for own in (splits, labels, captions)),
        ]
        path = self.out / SHARDS / shard_name(part, number)
        few: list[str] = ["height", "width", "split", "label"]  # columns of few values
        options: dict[str, Any] = {"use_dictionary": few, "compression": "zstd", "compression_level": COMPRESSION_LEVEL}
        with atomic_path(path, self.out / WORK) as temporary:
            table = arrow.Table.from_arrays(arrays, schema=schema)
            parquet.write_table(table, temporary, row_group_size=ROW_GROUP, **options)
            data = temporary.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        counts = dict(sorted(Counter(splits).items()))
        return {"rows": len(keys), "bytes": len(data), "sha256": sha256, "splits": counts, "bad": bad}

    def _decoded(
        self, examples: list[Example]
    ) -> tuple[list[tuple[str, str, str, str]], np.ndarray, list[tuple[str, str]]]:
        """Of a batch what is said of the images that can be read, their pixels, and the others with the reason."""
        good, pixels, bad = [], [], []
        for own in examples:
            key = storable(own.key)
            try:
                pixels.append(self.tokenizer.pixels(own.read(self.tokenizer.reading), own.number))
            except BadImage as error:
                bad.append((key, str(error)))
            else:
                good.append((key, own.split, storable(own.label), storable(own.caption)))
        return good, np.stack(pixels) if pixels else np.empty(0, np.uint8), bad


def shard_name(part: int, number: int) -> str:
    """The file of a shard."""
    return f"{part:05}-{number:05}.parquet"


def record_path(out: Path, part: int, number: int) -> Path:
    """Where the record of a shard is: as what it was written, and how it ended."""
    return out / WORK / f"{part:05}-{number:05}.json"


def record_of(out: Path, part: int, number: int) -> dict[str, Any] | None:
    """The record of a shard that is complete; None of another."""
    try:
        record = json.loads(record_path(out, part, number).read_text(encoding="utf-8"))
        whole = (out / SHARDS / shard_name(part, number)).stat().st_size == record["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return record if whole else None
