"""metrics.jsonl and the progress bar: means of every term since the last line, checked for NaN and infinity."""

import errno
import itertools
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from smalti.errors import SmaltiError
from smalti.files import write_text

SHOWN = ("loss", "validation_loss", "distortion_nats", "kl_nats", "usage", "temperature")  # by the bar


class Bar(tqdm):
    """A progress bar whose time left is `left(done, elapsed)`: it may know of pauses, and of slower steps to come."""

    def __init__(self, left: Callable[[int, float], float], **options: Any):
        self.left = left
        shown = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}{postfix}]"
        super().__init__(bar_format=shown, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is shown."""
        found = super().format_dict
        seconds = self.left(found["n"], found["elapsed"])
        return {**found, "left": self.format_interval(seconds) if math.isfinite(seconds) else "?"}


class Log:
    """Accumulates the terms of every step without synchronising with the device; `write` adds a line.

    A run that goes on at step `start`, of `steps`, removes later lines from the file and begins with the `notes` of its
    checkpoint. Lines that are damaged are left out, and a file that cannot be read is put aside; a warning says so.
    The bar shows the time `left`, see `smalti.training.budget.TimeLeft`.
    """

    def __init__(
        self,
        path: Path,
        *,
        steps: int,
        start: int,
        progress: bool,
        notes: Mapping[str, Any],
        left: Callable[[int, float], float],
    ):
        self.path, self.names = path, []
        self.saved = start > 0  # whether there is a checkpoint
        self._pending: list[tuple[int, Tensor]] = []  # (step, terms), on the device
        self.sums: dict[str, float] = notes.get("sums", {})
        self.count: int = notes.get("count", 0)
        self.latest: dict[str, float] = {}  # of what the bar shows
        self.bar = Bar(left, total=steps, initial=start, disable=not progress, unit="step", dynamic_ncols=True)
        _put_aside_unreadable(path)
        records, damaged = _read(path)
        if damaged:
            warnings.warn(f"{path}: left out {damaged} damaged lines", stacklevel=4)
        kept = "".join(line + "\n" for line, record in records.items() if record["step"] <= start)
        if not path.exists() or path.read_bytes() != kept.encode():
            write_text(path, kept)

    def notes(self) -> dict[str, Any]:
        """The means that have been begun, for a checkpoint, before which the lines are on the disk."""
        self.check()
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
        self.saved = True
        return {"sums": self.sums, "count": self.count}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Add the terms of step `step` (counted from 1)."""
        self.names = list(terms)
        self._pending.append((step, torch.stack([term.double() for term in terms.values()])))
        self.bar.update()

    def check(self) -> None:
        """Synchronise with the device and check the terms added since the last check.

        Raises:
            SmaltiError: a term is not finite; names the first such step and term.
        """
        for step, values in self._pending:
            for name, value in zip(self.names, values.tolist(), strict=True):
                if not math.isfinite(value):
                    remedy = "Lower --learning_rate, or start again with another --seed"
                    left = "the last good checkpoint is kept" if self.saved else "there is no checkpoint yet"
                    raise SmaltiError(f"step {step}: {name} is {value}; {left}. {remedy}")
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.count += 1
        self._pending.clear()

    def write(self, step: int, extra: dict[str, float]) -> dict[str, float]:
        """Write the means since the last line together with `extra`, and update the bar; returns the line."""
        self.check()
        means = {name: total / max(1, self.count) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        record = {"step": step, **means, **extra}
        rounded = {name: float(f"{value:.8g}") if isinstance(value, float) else value for name, value in record.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        self.latest |= rounded
        rate = {"img/s": f"{extra['images_per_second']:.0f}"} if "images_per_second" in extra else {}
        self.bar.set_postfix({**{name: f"{self.latest[name]:.4g}" for name in SHOWN if name in self.latest}, **rate})
        return rounded

    def say(self, text: str) -> None:
        """Print a line to stderr above the bar."""
        tqdm.write(text, file=sys.stderr)


def _put_aside_unreadable(path: Path) -> None:
    """Rename what is in the way of a log, for example a folder."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "no regular file")
        if path.exists():
            with path.open("r+b") as file:
                file.read()
    except OSError as error:
        aside = next(path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count()
                     if not path.with_name(f"{path.name}.damaged{number or ''}").exists())  # fmt: skip
        path.rename(aside)
        warnings.warn(f"{path}: {error.strerror}; it is now {aside.name}, and a new one begins", stacklevel=5)


def _read(path: Path) -> tuple[dict[str, dict[str, float]], int]:
    """The complete lines of a log with their records, by rising steps, and how many damaged ones there are between.

    A truncated last line is dropped: a killed process leaves one.
    """
    records: dict[str, dict[str, float]] = {}
    damaged, last = 0, 0
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError:
        return {}, 0
    for line in lines:
        try:
            text = line.decode()
            record = json.loads(text)
            if not last < record["step"] < math.inf:
                raise ValueError("out of order")
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
            continue
        records[text], last = record, record["step"]
    return records, damaged


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a metrics.jsonl, as far as they can be read."""
    return [*_read(path)[0].values()]
