"""A folder of code shards: parquet files that any program reads, and a manifest that says what they are.

    DIR/codes/00000-00000.parquet   key, codes, height, width, split, label, caption: a row an image
    DIR/bad.jsonl                   the images that could not be read, and why
    DIR/manifest.json               written last

`codes` is a list of fixed size, h times w in row-major order, of the smallest unsigned type that holds K; the grid, and
what made the codes, are in the schema's metadata under `smalti` and in the manifest.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from smalti.configs import FREE, from_dict, to_dict
from smalti.data.parquet import opened
from smalti.errors import SmaltiError, one_line
from smalti.files import file_hash, read_bounded
from smalti.images.preprocessing import Preprocessing

T = TypeVar("T")
SHARDS, MANIFEST, BAD = "codes", "manifest.json", "bad.jsonl"
METADATA = b"smalti"  # the key in a schema
MOST_MANIFEST = 1 << 30  # bytes; ten million shards
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CodesOf:
    """What decides a set of code shards: the images, the tokenizer, and how many rows a shard has.

    Attributes:
        data: the images, as they were named.
        split: the part of them.
        fingerprint: of the images, see `smalti.data.source.fingerprint_of`.
        tokenizer: as it was named.
        tokenizer_hash: SHA-256 of its weights.
        codebook_size: K.
        grid: (h, w) of an image's codes; those of several codebooks stand side by side.
        codebooks: how many stand side by side.
        preprocessing: what was done to the images.
        precision: of the encoder, fp32 or bf16.
        rows_per_shard: images of a shard; the last one of a part of the data has fewer, and bad images leave gaps.
        label_kind: of the labels; empty where there are none.
        smalti: the version.
    """

    data: str = field(metadata=FREE)
    split: str
    fingerprint: str
    tokenizer: str = field(metadata=FREE)
    tokenizer_hash: str
    codebook_size: int
    grid: tuple[int, int]
    codebooks: int
    preprocessing: Preprocessing
    precision: str
    rows_per_shard: int
    label_kind: str = "class"
    smalti: str = field(metadata=FREE)

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds a code."""
        return np.dtype(np.min_scalar_type(self.codebook_size - 1))

    @property
    def schema(self) -> Any:
        """Of a shard."""
        import pyarrow as arrow

        codes = arrow.list_(arrow.field("element", arrow.from_numpy_dtype(self.dtype)), self.grid[0] * self.grid[1])
        texts = [(name, arrow.string()) for name in ("split", "label", "caption")]
        fields = [
            ("key", arrow.string()),
            ("codes", codes),
            ("height", arrow.int32()),
            ("width", arrow.int32()),
            *texts,
        ]
        about = {
            key: value for key, value in to_dict(self).items() if key not in ("data", "tokenizer", "rows_per_shard")
        }
        return arrow.schema(fields, {METADATA: json.dumps({"format": FORMAT, **about}).encode()})


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of codes.

    Attributes:
        name: below the folder `codes`.
        rows: images.
        bytes: its size.
        sha256: of the file.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """manifest.json.

    Attributes:
        format: 1.
        codes_of: what they are.
        columns: name to type of a shard's columns, as parquet has them.
        num_images: rows of all shards.
        num_bad_images: that could not be read; bad.jsonl says which.
        splits: images by the split that the data, or a hash of the key, says.
        shards: in order.
    """

    format: int = FORMAT
    codes_of: CodesOf
    columns: Mapping[str, str]
    num_images: int
    num_bad_images: int
    splits: Mapping[str, int]
    shards: tuple[Shard, ...]


def has_codes(folder: Path | str) -> bool:
    """Whether a folder is one of code shards that are complete."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path | str) -> Manifest:
    """What a folder of code shards holds.

    Raises:
        SmaltiError: no manifest, a damaged one, or one of another version.
    """
    path = Path(folder) / MANIFEST
    with one_line(path, f"{path} is damaged"):
        values = json.loads(read_bounded(path, MOST_MANIFEST))
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise SmaltiError(f"{path} has format {values.get('format')!r}, this smalti reads {FORMAT}; update smalti")
        return from_dict(Manifest, values, "")


class CodeShards:
    """The rows of a folder of code shards: their texts, and codes in any order.

    Args:
        folder: that has a manifest.

    Raises:
        SmaltiError: no manifest, or pyarrow is missing.
    """

    def __init__(self, folder: Path | str):
        self.folder, self.manifest = Path(folder), read_manifest(folder)

    def __len__(self) -> int:
        return self.manifest.num_images

    def _path(self, shard: Shard) -> Path:
        return self.folder / SHARDS / shard.name

    def column(self, name: str) -> Sequence[str]:
        """The texts of a column, held as arrow holds them."""
        tables = [self._table(shard, [name]) for shard in self.manifest.shards]
        import pyarrow as arrow  # after what says that it is missing

        chunks = [chunk for table in tables for chunk in table[name].chunks]
        return Each(arrow.chunked_array(chunks, arrow.string()), lambda text: text.as_py())

    def read_codes(self, into: np.ndarray, rows: np.ndarray) -> None:
        """Copy the codes of rows, in ascending order, into an array (N, h, w), shard after shard.

        Raises:
            SmaltiError: a shard is missing or is not the one that the manifest names.
        """
        first = 0
        height, width = self.manifest.codes_of.grid
        for shard in self.manifest.shards:
            begin, end = np.searchsorted(rows, [first, first + shard.rows])
            if end > begin:
                path = self._path(shard)
                if not path.is_file() or file_hash(path) != shard.sha256:
                    raise SmaltiError(f"{path} is missing or damaged: it is not what {MANIFEST} names; copy it again")
                column = self._table(shard, ["codes"])["codes"].combine_chunks()
                codes = column.flatten().to_numpy().reshape(-1, height, width)
                into[begin:end] = codes[rows[begin:end] - first]
            first += shard.rows

    def _table(self, shard: Shard, columns: list[str]) -> Any:
        path = self._path(shard)
        with one_line(path, f"{path} is missing, cut off, or not parquet; copy it again"):
            return opened(path).read(columns=columns)


class Each(Sequence[T]):
    """A sequence whose items are made of another's when they are asked for.

    Args:
        items: what they are made of.
        make: makes one.
    """

    def __init__(self, items: Any, make: Callable[[Any], T]):
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self.make(self.items[int(index)])
