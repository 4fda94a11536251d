"""The native kernels of `kernels/`: loaded, chosen for this processor, and called.

They are plain C without PyTorch's headers, compiled when smalti is installed. Where there was no compiler `kernels()`
is None, and each operation takes its plain PyTorch form, which gives the same results within rounding.
SMALTI_KERNELS=off (or avx512, avx2, portable) decides otherwise.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError

LIBRARY = Path(__file__).with_name("kernels") / "native.so"
VARIANTS = ("avx512", "avx2", "portable")  # best first
TYPES = {"t": ctypes.c_void_p, "i": ctypes.c_long, "f": ctypes.c_float}
SIGNATURES = {  # tensors, whole numbers, numbers; the number of threads comes last and is added here
    "pack": "tiit",
    "linear": "ttttiiii",
    "nearest": "ttttiii",
    "attend": "ttttiiiiii",
    "gumbel": "ttttttttiiifii",
    "gumbel_backward": "ttttttttiiifii",
    "gumbel_noise": "tiii",
    "write_intervals": "ttti",
    "end_stream": "t",
    "read_symbols": "tttiii",
    "adaptive_codes": "tttttttiiii",
    "decisions": "tttttii",
    "read_codes": "ttttttiif",
    "raster_row": "ttttiiiiiiiff",
    "peak": "ti",
}


class Kernels:
    """The kernels for one instruction set.

    Args:
        library: the shared library.
        variant: one of VARIANTS.
    """

    def __init__(self, library: ctypes.CDLL, variant: str):
        self.variant = variant
        self.panel: int = library[f"smalti_panel_{variant}"]()
        self.peak_flops: int = library[f"smalti_peak_flops_{variant}"]()  # of one iteration of `peak` on one thread
        for name, signature in SIGNATURES.items():
            function = library[f"smalti_{name}_{variant}"]
            function.argtypes = [*(TYPES[letter] for letter in signature), ctypes.c_int]
            function.restype = None
            setattr(self, name, _on_threads(function))

    pack: Callable[..., None]
    linear: Callable[..., None]
    nearest: Callable[..., None]
    attend: Callable[..., None]
    gumbel: Callable[..., None]
    gumbel_backward: Callable[..., None]
    gumbel_noise: Callable[..., None]
    write_intervals: Callable[..., None]
    end_stream: Callable[..., None]
    read_symbols: Callable[..., None]
    adaptive_codes: Callable[..., None]
    decisions: Callable[..., None]
    read_codes: Callable[..., None]
    raster_row: Callable[..., None]
    peak: Callable[..., None]


def _on_threads(function: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Tensor | np.ndarray | float) -> None:
        plain = [_pointer(value) for value in arguments]
        function(*plain, torch.get_num_threads())

    return call


def _pointer(value: Tensor | np.ndarray | float) -> float:
    """The address of a tensor or an array; a number as it is."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    return value.ctypes.data if isinstance(value, np.ndarray) else value


@cache
def load(variant: str) -> Kernels | None:
    """The kernels of one variant, or None where they were not compiled or this processor lacks the instructions."""
    if not LIBRARY.exists():
        return None
    library = ctypes.CDLL(str(LIBRARY))
    supported = getattr(library, f"smalti_supported_{variant}", None)
    return Kernels(library, variant) if supported is not None and supported() else None


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


class Packed:
    """A matrix (columns, depth) laid out in panels for one instruction set, with a number for each column.

    Args:
        kernels: for which.
        matrix: (columns, depth) float32.
        bias: (columns,) float32.
    """

    def __init__(self, kernels: Kernels, matrix: Tensor, bias: Tensor):
        self.columns, self.depth = matrix.shape
        panels = -(-self.columns // kernels.panel)
        self.panels = matrix.new_empty(panels, self.depth, kernels.panel)
        self.bias = F.pad(bias, (0, panels * kernels.panel - self.columns))
        kernels.pack(matrix.contiguous(), self.columns, self.depth, self.panels)


def kernels() -> Kernels | None:
    """The best kernels for this processor, or None."""
    return _chosen(os.environ.get("SMALTI_KERNELS", ""))


def kernels_for(*tensors: Tensor) -> Kernels | None:
    """The kernels if all these tensors are float32 on the CPU, else None."""
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return kernels() if plain else None
