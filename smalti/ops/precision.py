"""The arithmetic of networks: float32, or bfloat16 where the device is fast at it. Imports torch on use."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]
CPU_INFO = Path("/proc/cpuinfo")
FLAGS = {"avx512_bf16", "amx_bf16"}  # of processors that multiply bfloat16


def resolved(precision: Precision, device: str) -> Literal["fp32", "bf16"]:
    """What "auto" is: bf16 on CUDA and on a processor with bf16 arithmetic, else fp32."""
    if precision != "auto":
        return precision
    kind = device.partition(":")[0]
    return "bf16" if kind == "cuda" or (kind == "cpu" and processor_has_bf16()) else "fp32"


@cache
def processor_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 (AVX512-BF16 or AMX); others are slower at it than at float32."""
    import torch

    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if all(asked):
        return any(ask() for ask in asked if ask)
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return not FLAGS.isdisjoint(flags)


def arithmetic(precision: Precision, device: str) -> "torch.autocast":
    """A context in which networks compute in this precision.

    Bottlenecks, likelihoods, and a network's first and last layers beside them stay in float32, see `Head` in
    `smalti.models.networks`.
    """
    import torch

    bf16 = resolved(precision, device) == "bf16"
    return torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=bf16)
