"""Checkpoints in parts: a folder of safetensors files, one for each process, and a record that is written last.

`torch.distributed.checkpoint` writes and reads them, so that each process handles its own parts, and any number of them
reads what any other number has written. Nothing in the folder is pickled.
"""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti import processes
from smalti.errors import SmaltiError, reason
from smalti.files import read_json, write_json

RECORD = "record.json"


def is_whole(folder: Path) -> bool:
    """Whether all parts are there: the record is."""
    return (folder / RECORD).is_file()


def remove(folder: Path) -> None:
    """Delete a folder of parts; what is left of it at any moment is not whole."""
    (folder / RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder)


def write_parts(folder: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors, of which each process has its parts or the whole, by all processes together."""
    from torch.distributed import checkpoint

    if folder.exists() and processes.is_first():
        remove(folder)
    processes.any_of(False)
    single = [name for name, tensor in tensors.items() if not tensor.ndim]
    stored = {name: tensor.reshape(1) if not tensor.ndim else tensor for name, tensor in tensors.items()}
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with processes.peers():
        checkpoint.save(stored, storage_writer=writer, no_dist=processes.world() == 1)
    if processes.is_first():
        write_json(folder / RECORD, {**record, "single": single})
    processes.any_of(False)


def read_record(folder: Path) -> dict[str, Any]:
    """What `write_parts` was told."""
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or not isinstance(record.get("single"), list):
        raise SmaltiError(f"{folder / RECORD} is damaged; remove {folder}")
    return record


def shapes_of(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """The shapes and types of the tensors in a folder of parts."""
    from torch.distributed import checkpoint

    found: dict[str, Any] = checkpoint.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: (one.size, one.properties.dtype) for name, one in found.items()}


def fill(folder: Path, tensors: dict[str, Tensor], together: bool) -> dict[str, Tensor]:
    """Read tensors in place, each process its parts of them; returns them, single numbers as they were.

    Args:
        folder: of `write_parts`.
        tensors: of the stored shapes.
        together: whether all processes read, of which each has its parts.

    Raises:
        SmaltiError: a file is damaged or not there.
    """
    from torch.distributed import checkpoint

    try:
        reader = checkpoint.HuggingFaceStorageReader(str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is meant to be
            checkpoint.load(tensors, storage_reader=reader, no_dist=not together)
    except Exception as error:
        raise SmaltiError(f"{folder} is damaged ({reason(error)}); remove it") from error
    single = read_record(folder)["single"]
    return {name: tensor.reshape(()) if name in single else tensor for name, tensor in tensors.items()}


def read_parts(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Whole tensors, read by one process, and the record."""
    whole = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes_of(folder).items()}
    return fill(folder, whole, together=False), read_record(folder)
