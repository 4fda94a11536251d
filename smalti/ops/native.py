"""The native kernels of `kernels/`: loaded, chosen for this processor, and called.

They are plain C without PyTorch's headers, compiled when smalti is installed. Where there was no compiler `kernels()`
is None, and each operation takes its plain PyTorch form, which gives the same results within rounding.
SMALTI_KERNELS=off (or avx512, avx2, portable) decides otherwise; SMALTI_KERNELS_FILE names another library of the same
sources, such as one with a sanitizer's checks.
"""

import ctypes
import os
import re
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.errors import SmaltiError

SOURCES = Path(__file__).with_name("kernels")
LIBRARY = Path(os.environ.get("SMALTI_KERNELS_FILE") or SOURCES / "native.so")
VARIANTS = ("avx512", "avx2", "portable")  # best first

# Every kernel with its arguments in C's order, but for the number of threads, which comes last and is added here.
#   codes:i8[N]    an array of a type and sizes, a tensor or numpy's; [N]! is written to, [N]? may be None
#   place:int      an integer from 0 up (int64_t), seed:word any int64_t, temperature:float a float
#   N              a size alone is not passed: it is read off the arrays
#   where          must hold of all these. Names of LAYOUT are C's numbers, panels(C) holds C columns
SIGNATURES = {
    "pack": "matrix:f4[C,D] C D packed:f4[P,D,PANEL]! where D > 0, P == panels(C)",
    "nearest": "features:f4[N,D] codebook:f4[K,D] bias:f4[K] codes:i8[N]! N D K bytes:int where D > 0, 0 < K < 1 << 31",
    "gumbel": "logits:f4[N,K] packed:f4[P,K,PANEL]? codebook:f4[K,D] latents:f4[N,D]! kl:f4[N]! codes:i8[N]!"
    " sampled:i8[N]! stats:f4[N,4]! N K D temperature:float hard:int seed:word"
    " where 0 < K < 1 << 31, D > 0, temperature > 0, hard < 2, hard or packed is not None and P == panels(D)",
    "gumbel_backward": "logits:f4[N,K] packed:f4[P,D,PANEL] up:f4[N,W] kl_gradient:f4[N] stats:f4[N,4] means:f4[N]?"
    " logits_gradient:f4[N,K]! codebook_gradient:f4[K,W]?! N K D temperature:float hard:int seed:word"
    " where 0 < K < 1 << 31, D > 0, temperature > 0, hard < 2, P == panels(K), W == panels(D) * PANEL,"
    " hard or means is not None and codebook_gradient is not None",
    "gumbel_noise": "noise:f4[N,K]! N K seed:word",
    "write_intervals": "state:u8[8]! below:i8[N] sizes:i8[N] N",
    "end_stream": "state:u8[8]!",
    "read_symbols": "state:u8[8]! ends:i8[M,K] symbols:i8[N]! N K M where K > 0, M == 1 or M == N",
    "adaptive_codes": "state:u8[8]! codes:i8[N]! hints:i8[N]? shapes:i8[I,3] stretch:i2[4096] squash:u2[S]"
    " memory:u4[M]! I size:int lines:int decoding:int where S == 2 * STRETCH_LIMIT + 1,"
    " M == CONTEXTS * lines * SLOTS, lines.bit_count() == 1, 0 < size <= 1 << 32, decoding < 2",
    "decisions": "logits:f4[N,K] codes:i8[N] rules:f8[5] odds:f8[N,L]! noise:f8[N,L]! N K"
    " where K > 0, L == max(1, (K - 1).bit_length())",
    "read_codes": "state:u8[8]! logits:f4[N,K] frequencies:i8[F] rules:f8[5] mass:f4[N,M]! codes:i8[N]! N K"
    " offset:float where K > 0, M == 2 << max(1, (K - 1).bit_length()), F > rules[0]",
    "raster": "operations:i8[O,OPERATION] task:i8[TASK] O",
}
LAYOUT = {  # what Python assumes of C's structs and enums, in priors/machine.py; all.h says what they are there
    "OPERATION": 36,  # whole numbers of an operation
    "TASK": 23,  # of a task
    "KINDS": 5,  # of operations
    "FUNCTIONS": 7,  # of activations
}
TYPES = {
    "f4": torch.float32, "f8": torch.float64, "i2": torch.int16, "i8": torch.int64,
    "u2": torch.uint16, "u4": torch.uint32, "u8": torch.uint64,
}  # fmt: skip


class Argument:
    """One word of a signature."""

    def __init__(self, word: str):
        found = re.fullmatch(r"(\w+)(?::(\w+))?(?:\[([\w,]+)\])?([!?]*)", word)
        assert found, word
        self.word, self.name, self.kind = word, found[1], found[2] or "size"
        self.dims = found[3].split(",") if found[3] else []
        self.written, self.optional = "!" in found[4], "?" in found[4]
        self.type = ctypes.c_void_p if self.dims else ctypes.c_float if self.kind == "float" else ctypes.c_int64
        self.tensor_type = TYPES.get(self.kind)
        self.numpy_type = np.dtype(self.kind) if self.dims else None
        self.size = self.numpy_type.itemsize if self.numpy_type else 0  # bytes, and what addresses are multiples of

    def read(self, value: Any) -> tuple[int, tuple[int, ...]]:
        """The address and the shape of an array that is fit for C; of one that is not, (0, ())."""
        if isinstance(value, Tensor):
            fit = value.dtype is self.tensor_type and value.is_cpu and value.is_contiguous()
            address = value.data_ptr() if fit else 0
            fit = fit and not address % self.size
        elif isinstance(value, np.ndarray):
            flags = value.flags
            fit = value.dtype == self.numpy_type and flags.c_contiguous and flags.aligned
            fit = fit and (flags.writeable or not self.written)
            address = torch.from_numpy(value).data_ptr() if fit and flags.writeable else value.ctypes.data
        else:
            return 0, ()
        return (address, value.shape) if fit and len(value.shape) == len(self.dims) else (0, ())

    def check(self, known: set[str]) -> list[str]:
        """Lines of Python that check this argument, and put what C gets into _NAME; `known` are the sizes so far.

        The array itself keeps its name: it may be the caller's temporary, which must live until C returns.
        """
        refused = f"_refuse({self.word!r}, {self.name}, locals())"
        if self.kind in ("int", "word", "float"):
            low = 0 if self.kind == "int" else -1 << 63
            fit = f"isinstance({self.name}, int) and {low} <= {self.name} < {1 << 63}"
            fit = f"isinstance({self.name}, (int, float))" if self.kind == "float" else fit
            return [f"if not ({fit}): {refused}", f"_{self.name} = {self.name}"]
        sizes = [f"{self.name}_{axis}" if dim in known or dim.isdigit() else dim for axis, dim in enumerate(self.dims)]
        differ = [f"{size} != {dim}" for size, dim in zip(sizes, self.dims, strict=True) if size != dim]
        known.update(self.dims)
        lines = [
            f"_{self.name}, _shape = _read_{self.name}({self.name})",
            f"if not _shape: {refused}",
            f"{', '.join(sizes)}, = _shape",
            *([f"if {' or '.join(differ)}: {refused}"] if differ else []),
        ]
        if not self.optional:
            return lines
        return [f"_{self.name} = None", f"if {self.name} is not None:", *(f"    {line}" for line in lines)]


def _checked(name: str, function: Any, layout: dict[str, int]) -> Callable[..., None]:
    """A kernel as Python calls it: what does not fit its signature raises before C is reached.

    The checks are compiled, as those of a dataclass are: going through the signature at each call takes longer than a
    small kernel.
    """
    signature, _, where = SIGNATURES[name].partition(" where ")
    arguments = [Argument(word) for word in signature.split()]
    passed = [argument for argument in arguments if argument.kind != "size"]
    function.argtypes, function.restype = [*(argument.type for argument in arguments), ctypes.c_int], None

    def refuse(wanted: str, value: Any, values: dict[str, Any]) -> None:
        sizes = ", ".join(f"{key} = {size}" for key, size in values.items() if isinstance(size, int) and len(key) == 1)
        raise SmaltiError(f"{name}: {wanted} cannot be {_as_text(value)}{sizes and ', where '}{sizes}")

    known = set(layout)
    by_need = sorted(passed, key=lambda argument: argument.optional)  # what is None settles no size
    lines = [line for argument in by_need for line in argument.check(known)]
    if where:
        lines.append(f"if not all(({where},)): _refuse({where!r}, 'false', locals())")
    given = (argument.name if argument.kind == "size" else f"_{argument.name}" for argument in arguments)
    lines.append(f"_function({', '.join(given)}, _threads())")
    source = "\n    ".join([f"def {name}({', '.join(argument.name for argument in passed)}):", *lines])
    scope: dict[str, Any] = {f"_read_{argument.name}": argument.read for argument in passed}
    scope |= {"_function": function, "_threads": torch.get_num_threads, "_refuse": refuse}
    scope |= {"panels": lambda columns: -(-columns // layout["PANEL"]), **layout}
    exec(source, scope)
    return scope[name]


def _as_text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        flags = value.flags
        kinds = {"not contiguous": flags.c_contiguous, "read-only": flags.writeable, "not aligned": flags.aligned}
        faults = "".join(f", {fault}" for fault, fit in kinds.items() if not fit)
    elif isinstance(value, Tensor):
        faults = f" on {value.device}" + ", not contiguous" * (not value.is_contiguous())
    else:
        return str(value).replace("\n", " ")[:100]
    return f"{value.dtype} {tuple(value.shape)}{faults}"


class Kernels:
    """The kernels for one instruction set of a library, whose numbers are its `layout`: a method a signature."""

    def __init__(self, library: ctypes.CDLL, variant: str, layout: dict[str, int]):
        self.variant, self.panel = variant, layout["PANEL"]
        for name in SIGNATURES:
            setattr(self, name, _checked(name, library[f"smalti_{name}_{variant}"], layout))

    def packed(self, matrix: Tensor) -> Tensor:
        """A matrix (C, D) float32 in panels (P, D, PANEL) of columns, the last one filled up with zeros."""
        columns, depth = matrix.shape
        panels = matrix.new_empty(-(-columns // self.panel), depth, self.panel)
        self.pack(matrix.contiguous(), panels)
        return panels

    def __getattr__(self, name: str) -> Callable[..., None]:
        raise AttributeError(f"there is no kernel {name!r}")


class _Number(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_int64))


def _layout_of(library: ctypes.CDLL, variant: str) -> dict[str, int]:
    """The numbers of all.h by their names; {} from a library that has none."""
    numbers = getattr(library, f"smalti_layout_{variant}", None)
    if numbers is None:
        return {}
    numbers.restype = ctypes.POINTER(_Number)
    entries = takewhile(lambda entry: entry.name, map(numbers().__getitem__, count()))
    return {entry.name.decode(): entry.value for entry in entries}


@cache
def _opened(path: Path) -> ctypes.CDLL | None:
    """The library of the kernels; None where there is none, or, with a warning, where it cannot be loaded.

    That of a wheel names no OpenMP: its functions are those that came with PyTorch, so that there is one pool of
    threads. A PyTorch that has none to offer leaves them undefined.
    """
    try:
        return ctypes.CDLL(str(path)) if path.exists() else None
    except OSError as error:
        remedy = "plain PyTorch is used; compile it here with `pip install --no-binary smalti smalti`"
        warnings.warn(f"the native kernels cannot be loaded ({error}): {remedy}", stacklevel=4)
        return None


@cache
def load(variant: str) -> Kernels | None:
    """The kernels of one variant, or None where they were not compiled or this processor lacks the instructions.

    None with a warning, if they were compiled from other sources.
    """
    library = _opened(LIBRARY)
    supported = getattr(library, f"smalti_supported_{variant}", None)
    if library is None or supported is None or not supported():
        return None
    layout, sources = _layout_of(library, variant), sorted(SOURCES.glob("*.[ch]"))
    expected = LAYOUT | ({"SOURCES": zlib.crc32(b"".join(map(Path.read_bytes, sources)))} if sources else {})
    if expected.items() <= layout.items():
        return Kernels(library, variant, layout)
    remedy = "run `python setup.py build_ext --inplace`"
    warnings.warn(f"{LIBRARY} was compiled from other sources and is not used: {remedy}", stacklevel=2)
    return None


@cache
def _chosen(wanted: str) -> Kernels | None:
    if wanted in ("", "auto"):
        return next((found for found in map(load, VARIANTS) if found is not None), None)
    if wanted == "off":
        return None
    if wanted not in VARIANTS:
        raise SmaltiError(f"SMALTI_KERNELS is {wanted!r}; it can be off, auto, {', '.join(VARIANTS)}")
    found = load(wanted)
    if found is None:
        raise SmaltiError(f"SMALTI_KERNELS is {wanted!r}, which was not compiled or does not run on this processor")
    return found


def kernels() -> Kernels | None:
    """The best kernels for this processor, or None."""
    return _chosen(os.environ.get("SMALTI_KERNELS", ""))


def kernels_for(*tensors: Tensor) -> Kernels | None:
    """The kernels if all these tensors are float32 on the CPU, at addresses of whole floats; else None."""
    plain = all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not tensor.data_ptr() % 4
        for tensor in tensors
    )
    return kernels() if plain else None
