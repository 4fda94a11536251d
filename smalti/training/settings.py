"""The settings of a run: how long, on what, how closely watched. Without torch, so that `--help` is quick."""

from dataclasses import dataclass
from typing import Literal

from smalti.errors import SmaltiError


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every training can be told; the same settings give the same bits on the same machine.

    Attributes:
        steps: optimiser steps.
        batch_size: images per batch.
        seed: of everything random.
        device: "auto" (CUDA where there is one), "cpu", "cuda", ...
        precision: "auto" (bf16 on CUDA), "fp32", or "bf16" (autocast).
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures; 0 is never.
        checkpoint_every: steps between checkpoints.
    """

    steps: int = 2400
    batch_size: int = 32
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    log_every: int = 50
    sample_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise SmaltiError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("seed", "sample_every"):
            if getattr(self, name) < 0:
                raise SmaltiError(f"{name} must not be negative: {getattr(self, name)}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise SmaltiError(f"precision must be auto, fp32 or bf16, not {self.precision!r}")
