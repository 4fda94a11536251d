"""The codes of a folder of code shards: in memory where they fit, otherwise in a file that is mapped.

Nothing is decoded or encoded. Codes are read in any order, so that a training sees the batches that it would see of the
images, and goes on at the example.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from smalti.data.batches import MEMORY_BYTES
from smalti.data.source import Source
from smalti.errors import SmaltiError
from smalti.files import atomic_path, read_json, write_json
from smalti.priors.config import PriorConfig


def read_shards(config: PriorConfig, source: Source, cache: Path | None) -> Tensor:
    """The codes (N, h, w) of a part of a folder of code shards, as the smallest integers that hold them.

    Args:
        config: of the prior.
        source: with codes.
        cache: the folder of the file that is mapped, where the codes do not fit into memory.

    Raises:
        SmaltiError: codes of another tokenizer or another grid than the prior's.
    """
    codes = source.codes
    assert codes is not None
    config.check_tokenizer(codes.tokenizer_hash)
    if codes.grid != config.grid:
        has, needs = (f"{height}x{width}" for height, width in (codes.grid, config.grid))
        raise SmaltiError(f"{source.name} has {has} codes an image, this prior models {needs}: images of another size")
    rows = np.asarray(source.indices, np.int64)
    shape, dtype = (len(rows), *codes.grid), _smallest(codes.codebook_size)
    if cache is None or np.prod(shape) * dtype.itemsize <= MEMORY_BYTES:
        found = np.empty(shape, dtype)
        codes.read(found, rows)
        return torch.from_numpy(found)
    path, key = cache / f"codes-{source.split}.npy", {"tokenizer": codes.tokenizer_hash, **source.about}
    about = path.with_suffix(".json")
    if not (path.is_file() and about.is_file() and read_json(about) == key):
        print(f"{path}: unpacking the codes of {len(rows):,} images", file=sys.stderr)
        with atomic_path(path) as temporary:
            mapped = open_memmap(temporary, "w+", dtype, shape)
            codes.read(mapped, rows)
            mapped.flush()
        write_json(about, key)
    return torch.from_numpy(np.load(path, mmap_mode="c"))  # a copy on write: torch wants what may be written


def _smallest(codebook_size: int) -> np.dtype:
    """The smallest type of torch that holds codes and can be indexed."""
    return np.dtype(np.uint8 if codebook_size <= 1 << 8 else np.int16 if codebook_size <= 1 << 15 else np.int32)
