"""Files of `torch.save`, opened as data: what they name is neither imported nor called.

`torch.load(weights_only=True)` reads them, which calls a fixed set of functions of its own. Before it does, the pickle
is measured (`_measure`): it may name only what `smalti.interop.shells` lists, and may not ask for more work than its
length warrants. There is no option that lets more in.
"""

import io
import itertools
import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from smalti.errors import SmaltiError, one_line, shown
from smalti.interop.naming import named_tensors
from smalti.interop.shells import KNOWN, STAND_INS, Shell

MOST_PICKLE, MOST_WORK = 1 << 22, 1 << 20  # bytes; about microseconds
STEP, CALL = 2, 32  # work of an instruction, and of a call besides
MOST_TUPLE = 1 << 13  # parts, all the way down: Python dies of the hash of a tuple that is nested too deeply
OPCODES = frozenset({  # of those that `weights_only=True` reads
    "PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID", "APPEND", "APPENDS", "SETITEM",
    "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "NONE",
    "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING",
    "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
})  # fmt: skip
TAKES = {  # how many values an instruction takes from the stack, those after the mark where it is None
    "NEWOBJ": 1, "REDUCE": 1, "BUILD": 1, "APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3,
    "APPENDS": None, "SETITEMS": None, "TUPLE": None,
}  # fmt: skip
NAMES, TUPLES = ("GLOBAL", "INST"), ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
OTHER_TENSORS = re.compile(  # sparse, quantised, complex, of 8 bits
    r"torch\.(_utils|_tensor)\._rebuild_\w+|torch\.(\w+\.)*\w*(Storage|float|complex|q?u?int)\w*"
)
OTHER_TYPES = re.compile(r"torch\.(float|complex|q?u?int|bits)[0-9]\w*")
MOST_SETTINGS, WIDEST, DEEPEST_SETTINGS = 10_000, 256, 12  # values; in one list; levels
SETTINGS = ("hyper_parameters", "config", "args", "cfg")  # where a checkpoint keeps its own


def read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of `torch.save`, mapped where it is a zip, and the settings that it holds as plain data.

    Raises:
        SmaltiError: it names anything but tensors and what `smalti.interop.shells` lists, holds tensors of
            other types or larger than itself, is a TorchScript archive, packed, damaged, or asks for too much work.
    """
    zipped = zipfile.is_zipfile(path)
    with one_line(path, f"{path} is damaged or not of torch.save; fetch it again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if zipped:
            _measure(io.BytesIO(_pickle_in_zip(path)))
        else:
            with path.open("rb") as file:
                front = io.BytesIO(file.read(MOST_PICKLE))
            for _ in range(5):  # before PyTorch 1.6: a magic number, version, machine, the value, names of storages
                _measure(front)
        value = _loaded(path, mapped=zipped)
        tensors = named_tensors(value)
        held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
        if sum(held.values()) > path.stat().st_size:
            raise SmaltiError("its tensors are larger than the file; fetch it again")
        for name, tensor in tensors.items():
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                what = f"{shown(name)} has shape {shown(tuple(tensor.shape))}, more numbers than the file holds for it"
                raise SmaltiError(f"{what}; fetch it again")
        return tensors, _settings(value)


def _loaded(path: Path, mapped: bool) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS):  # pyright: ignore[reportArgumentType]
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:  # a long text about how to open it all the same
        what = "it is damaged, or holds more than tensors, plain data and known classes"
        raise SmaltiError(f"{what}; save the state_dict alone") from error


def _pickle_in_zip(path: Path) -> bytes:
    """The bytes of data.pkl, after the entries of the zip were compared with its length."""
    size = path.stat().st_size
    if _directory_bytes(path, size) > MOST_PICKLE:
        raise SmaltiError("it has too many entries, or no end of a zip; fetch it again")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        inner = [entry.filename.partition("/")[2] for entry in entries]
        if any(name == "constants.pkl" or name.startswith("code/") for name in inner):
            raise SmaltiError("a TorchScript archive is a program, which is not run; torch.save its state_dict()")
        if inner.count("data.pkl") != 1 or len(set(archive.namelist())) < len(entries):
            raise SmaltiError("a zip that torch.save did not write; give a file of torch.save or safetensors")
        if packed := [entry.filename for entry in entries if entry.compress_type or entry.flag_bits & 1]:
            raise SmaltiError(f"{shown(packed[0])} in it is packed, which torch.save never does; save it again")
        if sum(entry.file_size for entry in entries) > size:
            raise SmaltiError("its entries are longer than the file; fetch it again")
        entry = entries[inner.index("data.pkl")]
        if entry.file_size > MOST_PICKLE:
            what = f"its data.pkl has {entry.file_size:,} bytes, of which {MOST_PICKLE:,} are read"
            raise SmaltiError(f"{what}; save the state_dict alone")
        return archive.read(entry)


def _directory_bytes(path: Path, size: int) -> int:
    """How long the list of entries at the end of a zip is, by its last 22 bytes, or by those of 64 bits before them."""
    with path.open("rb") as file:
        file.seek(max(0, size - 98))
        end = file.read().rjust(98, b"\0")
    if end[76:80] != b"PK\5\6":
        return MOST_PICKLE + 1
    return int.from_bytes(end[40:48] if end[56:60] == b"PK\6\7" else end[88:92], "little")


def _measure(file: io.BytesIO) -> None:
    """Walk through a pickle without making what it describes: refuse what it may not name or do.

    The stack holds sizes, in cells that copies share: of a text its length, of a tuple, list or dict those of its
    parts. This is about what it costs to hash or to copy it, which is all that a call can do.

    Raises:
        SmaltiError: a global that is not known, an instruction of another protocol, too much work.
    """
    stack: list[list[int]] = []
    marks: list[list[list[int]]] = []
    memo: dict[int, list[int]] = {}
    work = 0
    instructions = pickletools.genops(file)
    for code, given, _ in instructions:
        name, argument = code.name, cast(Any, given)
        if name in NAMES:
            _check_name(argument, instructions)
        if name not in OPCODES:
            raise SmaltiError(f"its pickle has {name}, which torch.save does not write; save the state_dict alone")
        if name == "MARK":
            marks.append(stack)
            stack = []
        elif name.endswith("BINPUT"):
            memo[argument] = stack[-1]
        elif name.endswith("BINGET"):
            stack.append(memo[argument])
        elif name in TAKES:
            count = len(stack) if TAKES[name] is None else TAKES[name]
            taken = sum(cell[0] for cell in stack[len(stack) - count :])
            del stack[len(stack) - count :]
            stack = marks.pop() if TAKES[name] is None else stack
            work += _put(stack, name, taken)
        elif name not in ("PROTO", "STOP", "BINPERSID"):
            stack.append([len(argument) if isinstance(argument, str | bytes) else 1])
        work += STEP
        if work > MOST_WORK or (name in TUPLES and stack[-1][0] > MOST_TUPLE):
            raise SmaltiError("its pickle asks for too much work; save the state_dict alone")


def _put(stack: list[list[int]], name: str, taken: int) -> int:
    """What an instruction leaves on the stack for what it took from it; returns the work."""
    if name in TUPLES:
        stack.append([1 + taken])
        return 0
    if name in ("NEWOBJ", "REDUCE"):
        stack[-1] = [1 + taken]
        return CALL + taken
    stack[-1][0] += taken
    return taken + CALL * (name == "BUILD")


def _check_name(argument: Any, rest: Iterator[tuple[Any, Any, Any]]) -> None:
    """Refuse a global that is not known; of tensors of another kind, say of which type they are, which comes soon."""
    name = _dotted(argument)
    if name in KNOWN:
        return
    if OTHER_TENSORS.fullmatch(name):
        soon = [_dotted(own) for code, own, _ in itertools.islice(rest, 40) if code.name in NAMES]
        name = next((own for own in soon if OTHER_TYPES.fullmatch(own) and own not in KNOWN), name)
        raise SmaltiError(f"it holds {shown(name)}: only plain tensors are read; convert to float32 first")
    what = f"it names {shown(name)}, which is neither a tensor nor known to be harmless; nothing of it was run"
    raise SmaltiError(f"{what}; save the state_dict alone")


def _dotted(argument: Any) -> str:
    """The full name of a global, of which the pickle says module and name as Python 2 called them."""
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _settings(value: Any) -> dict[str, Any]:
    """The settings in a checkpoint: what is plain data of them."""
    kept = [value[key] for key in SETTINGS if key in value] if isinstance(value, dict) else []
    found = [_plain(own, itertools.count()) for own in kept]
    return next((own for own in found if own and isinstance(own, dict)), {})


def _plain(value: Any, count: Iterator[int], depth: int = 0) -> Any:
    """Dicts, lists, texts and numbers, as many as settings have; None for all else. Nodes of OmegaConf are opened."""
    if isinstance(value, Shell) and isinstance(state := value.state, dict):
        value = state.get("_content", state.get("_val", state))
    if depth > DEEPEST_SETTINGS or next(count) > MOST_SETTINGS:
        return None
    if isinstance(value, dict):
        return {
            key: _plain(value[key], count, depth + 1) for key in itertools.islice(value, WIDEST) if type(key) is str
        }
    if isinstance(value, list | tuple):
        return [_plain(own, count, depth + 1) for own in value[:WIDEST]]
    return value if isinstance(value, str | int | float | bool) else None
