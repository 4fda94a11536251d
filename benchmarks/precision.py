"""bf16 beside fp32, of the same recipe in one run: training and encoding, where the processor has bf16 arithmetic.

    make bench-precision        # or: python benchmarks/precision.py

On other processors nothing is measured: --precision auto is fp32 there.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from common import compare, save
from PIL import Image

from smalti.apps.process import keep_freed_memory
from smalti.ops.precision import Precision, arithmetic, processor_has_bf16
from smalti.recipes import RECIPES
from smalti.training import loop
from smalti.training.state import TrainState
from smalti.training.stepping import Trainer

SIDES: tuple[Literal["bf16", "fp32"], ...] = ("bf16", "fp32")
STEPS, IMAGES = 2, 32
OPTIONS = {"vqvae": {"codebook_size": 8192}, "dvae": {}, "ae": {}}


def pictures(folder: str, size: int) -> str:
    """A folder of noise, which takes no time to read."""
    for index in range(IMAGES):
        pixels = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(folder) / f"{index}.png", compress_level=0)
    return folder


def training(recipe: str, size: int, batch: int, precision: Literal["bf16", "fp32"]) -> Callable[[], float]:
    """Images a second of optimiser steps."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = RECIPES[recipe](data=pictures(folder, size), image_size=size, stride=8, **OPTIONS[recipe])
        experiment = experiment.with_settings(batch_size=batch, validate_every=0, precision=precision)
        task = loop._task(experiment, "cpu", Path(folder), False)
    state, batches = TrainState(task.model, experiment.optimizer, precision), task.batches(0)
    trainer = Trainer(experiment, task, state, functools.partial(arithmetic, precision, "cpu"))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            trainer.step(batches, state.step)
        return STEPS * batch / (time.perf_counter() - start)

    return run


def encoding(recipe: str, size: int, batch: int) -> dict[str, Callable[[], float]]:
    """Images a second of one model's encoding, latents where it has no codes."""
    from smalti.models.autoencoder import Autoencoder

    torch.manual_seed(0)
    model = Autoencoder(RECIPES[recipe](image_size=size, stride=8, **OPTIONS[recipe]).model).eval()
    images = torch.rand(batch, 3, size, size)

    def side(precision: Precision) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            with arithmetic(precision, "cpu"):
                model.encode_latents(images)
            return batch / (time.perf_counter() - start)

        return run

    return {precision: side(precision) for precision in SIDES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", default="benchmarks/results/precision.json")
    given = parser.parse_args()
    if not processor_has_bf16():
        print("no bf16 arithmetic on this processor: nothing to measure")
        return
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    what = f"{given.image_size}x{given.image_size}, batch {given.batch}"
    for recipe in OPTIONS:
        sides = {precision: training(recipe, given.image_size, given.batch, precision) for precision in SIDES}
        trained = compare(f"training {recipe}, {what}", sides, "bf16", given.rounds, "images/s")
        sides = encoding(recipe, given.image_size, given.batch)
        encoded = compare(f"encoding {recipe}, {what}", sides, "bf16", given.rounds, "images/s")
        save([trained, encoded], Path(given.out))


if __name__ == "__main__":
    main()
