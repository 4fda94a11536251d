"""metrics.jsonl and the progress bar: means of every term since the last line, checked for NaN and infinity."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from smalti.errors import SmaltiError

SHOWN = ("loss", "validation_loss", "distortion_nats", "kl_nats", "usage", "temperature")  # by the bar


class Log:
    """Accumulates the terms of every step without synchronising with the device; `write` adds a line.

    A run that goes on at step `start`, of `steps`, removes later lines from the file and begins with the `notes` of its
    checkpoint.
    """

    def __init__(self, path: Path, *, steps: int, start: int, progress: bool, notes: Mapping[str, Any]):
        self.path, self.names = path, []
        self._pending: list[tuple[int, Tensor]] = []  # (step, terms), on the device
        self.sums: dict[str, float] = notes.get("sums", {})
        self.count: int = notes.get("count", 0)
        self.latest: dict[str, float] = {}  # of what the bar shows
        self.bar = tqdm(total=steps, initial=start, disable=not progress, unit="step", dynamic_ncols=True)
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= start]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def notes(self) -> dict[str, Any]:
        """The means that have been begun, for a checkpoint."""
        self.check()
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
                    raise SmaltiError(f"step {step}: {name} is {value}; the last good checkpoint is kept. {remedy}")
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


def _lines(path: Path) -> list[str]:
    """The complete lines of a file; a truncated last line is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a metrics.jsonl."""
    return [json.loads(line) for line in _lines(path)]
