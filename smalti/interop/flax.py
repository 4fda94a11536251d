"""Weights of Flax: nested dicts of arrays as MessagePack, which has no code in it."""

import math
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.errors import SmaltiError, one_line, shown
from smalti.interop.naming import named_tensors

MOST_ENTRIES, MOST_TEXT, MOST_LIST = 1 << 16, 1 << 10, 64
ARRAY, SCALAR = 1, 3  # extension types: (shape, type, bytes) as MessagePack
CHUNKED = "__msgpack_chunked_array__"
TYPES = {
    str(own).removeprefix("torch."): own
    for own in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool,
                torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
}  # fmt: skip


def read_msgpack(path: Path) -> dict[str, Tensor]:
    """The arrays of a Flax file by the keys on the way, joined by dots.

    Raises:
        SmaltiError: it is damaged, holds arrays of other types or longer than itself, or is no tree of arrays.
    """
    import msgpack

    entries = 0

    def counted(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal entries
        entries += len(pairs)
        if entries > MOST_ENTRIES:
            raise SmaltiError(f"it has more than {MOST_ENTRIES:,} entries; is it a file of Flax?")
        found = dict(pairs)
        return _whole(found) if found.get(CHUNKED) else found

    def array(kind: int, data: bytes) -> Tensor:
        if kind not in (ARRAY, SCALAR):
            raise SmaltiError(f"it holds extension type {kind}; only arrays are read; convert to float32 first")
        return _array(*msgpack.unpackb(data, max_array_len=MOST_LIST, max_map_len=0, max_ext_len=0))

    with one_line(path, f"{path} is damaged or not of Flax; fetch it again"), path.open("rb") as file:
        limits = {"max_array_len": MOST_LIST, "max_map_len": MOST_ENTRIES, "max_str_len": MOST_TEXT}
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        value = msgpack.unpackb(data, object_pairs_hook=counted, ext_hook=array, **limits)
        if not isinstance(value, dict):
            raise SmaltiError("it is no dict of arrays; is it a file of Flax?")
        return named_tensors(value)


def _array(shape: Any, name: Any, data: Any) -> Tensor:
    """One array, after its shape was compared with its bytes."""
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if name not in TYPES:
        raise SmaltiError(f"it holds an array of type {shown(name)}; convert to float32 first")
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 8:
        raise SmaltiError(f"it holds an array of shape {shown(shape)}; fetch it again")
    if math.prod(shape) * TYPES[name].itemsize != len(data):
        raise SmaltiError(f"an array of shape {shown(shape)} and type {name} has {len(data):,} bytes; fetch it again")
    return (
        torch.frombuffer(bytearray(data), dtype=TYPES[name]).reshape(shape)
        if data
        else torch.empty(shape, dtype=TYPES[name])
    )


def _whole(chunked: dict[str, Any]) -> Tensor:
    """An array that was too long for one piece."""
    shape, chunks = ([own[str(place)] for place in range(len(own))] for own in (chunked["shape"], chunked["chunks"]))
    if math.prod(shape) != sum(chunk.numel() for chunk in chunks):
        raise SmaltiError(f"the parts of an array of shape {shown(shape)} do not fit it; fetch it again")
    return torch.cat([chunk.reshape(-1) for chunk in chunks]).reshape(shape)


LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
LISTED = re.compile(r"(?<!mid\.)\b(down|up|block|attn)_(\d+)(?=\.)")  # modules that were in a list


def as_pytorch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names, and with the axes, that PyTorch gives them; those of PyTorch as they are."""
    if not any(name.endswith(".kernel") for name in tensors):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        place, _, leaf = LISTED.sub(r"\1.\2", name).rpartition(".")
        kernel = leaf == "kernel" and tensor.ndim == 4  # height, width, in, out
        found[f"{place}.{LEAVES.get(leaf, leaf)}"] = tensor.permute(3, 2, 0, 1) if kernel else tensor
    return found
