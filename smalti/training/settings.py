"""The settings of a run: how long, on what, how closely watched. Without torch, so that `--help` is quick."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from smalti.configs import FREE, effective
from smalti.errors import SmaltiError
from smalti.ops.precision import Precision

Watched = Literal["log", "sample", "checkpoint", "validate"]
TIMES: dict[Watched, int] = {"log": 50, "sample": 5, "checkpoint": 10, "validate": 10}  # in a run, by default
APART: dict[Watched, int] = {"log": 10, "sample": 100, "checkpoint": 50, "validate": 50}  # steps, at least, by default


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every training can be told; the same settings give the same bits on the same machine.

    A run that goes on may have others of those that are marked as free: docs/training.md has the table.

    Attributes:
        steps: optimiser steps.
        minutes: how long a new run may take, from its command on, in place of `steps`: the first ones are measured, and
            as many as fit are then its steps.
        batch_size: images per batch.
        seed: of everything random.
        device: "auto" (CUDA where there is one), "cpu", "cuda", ...
        precision: of the networks: "fp32", "bf16" (autocast), or "auto": bf16 on CUDA and on a processor that has bf16
            arithmetic, fp32 on others; a run that goes on keeps what it was.
        compile: autoencoders' networks are compiled by PyTorch before the first step, which takes minutes and needs a
            C++ compiler; the same training but for rounding, also where a run goes on with it or without.
        shard: a prior is cut into one part for each process that torchrun has started (FSDP2), its optimiser too, for
            one that a device does not hold; otherwise each process has the whole.
        log_every: steps between lines of metrics.jsonl; by default 50 in a run, 10 steps apart or more.
        sample_every: steps between pictures; 0 is never; by default 5 in a run, 100 steps apart or more.
        checkpoint_every: steps between checkpoints; by default 10 in a run, 50 steps apart or more.
        validate_every: steps between validations; 0 is never; by default 10 in a run, 50 steps apart or more.
        validation_images: at most this many evenly spread images of the validation split; 0 is all.
        keep: the model that the run's folder holds: the "last", or the "best" by validation_loss, with the last beside
            it in the folder last.
        patience: validations in a row without a better validation_loss that end the run early; 0 is never.
        log: "jsonl", or "tensorboard": event files in the folder tensorboard beside metrics.jsonl.
    """

    steps: int = field(default=2400, metadata=FREE)  # but not below what is done
    minutes: float | None = field(default=None, metadata=FREE)  # but a run that has begun has its steps
    batch_size: int = 32
    seed: int = 0
    device: str = field(default="auto", metadata=FREE)
    precision: Precision = "auto"
    compile: bool = field(default=False, metadata=FREE)  # but other bits
    shard: bool = field(default=False, metadata=FREE)
    log_every: int | None = field(default=None, metadata=FREE)
    sample_every: int | None = field(default=None, metadata=FREE)
    checkpoint_every: int | None = field(default=None, metadata=FREE)
    validate_every: int | None = field(default=None, metadata=FREE)  # but see `by_validation`
    validation_images: int = field(default=256, metadata=FREE)  # likewise
    keep: Literal["last", "best"] = "last"
    patience: int = 0
    log: Literal["jsonl", "tensorboard"] = field(default="jsonl", metadata=FREE)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "checkpoint_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SmaltiError(f"{name} must be at least 1, not {value}")
        for name in ("seed", "sample_every", "validate_every", "validation_images", "patience"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise SmaltiError(f"{name} must not be negative: {value}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise SmaltiError(f"minutes must be positive, not {self.minutes}")
        for own in fields(self):
            known, value = get_args(own.type), getattr(self, own.name)
            if get_origin(own.type) is Literal and value not in known:
                raise SmaltiError(f"{own.name} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}")
        effective(self.validate_every != 0, "without validate_every", **self.need_validation)

    def every(self, what: Watched) -> int:
        """Steps from one line, picture, checkpoint or validation to the next; 0 is never."""
        given = getattr(self, f"{what}_every")
        return max(APART[what], math.ceil(self.steps / TIMES[what])) if given is None else given

    @property
    def need_validation(self) -> dict[str, tuple[str | int | None, str | int]]:
        """The settings without effect where nothing is validated: (the value or None, the default)."""
        keep = None if self.keep == "last" else self.keep
        return {"keep": (keep, "last"), "patience": (self.patience or None, 0)}

    @property
    def by_validation(self) -> dict[str, Any]:
        """The settings of the validation, where it decides which model is kept or when the run ends."""
        decides = self.keep != "last" or self.patience
        return {"validate_every": self.validate_every, "validation_images": self.validation_images} if decides else {}
