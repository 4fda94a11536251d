"""Weights and images that a name and a shape determine: the golden files hold names and answers only.

numpy alone: the environment of the original projects runs this file too (`benchmarks/originals/`).
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 32, 48


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def filled(name: str, shape: list[int], scales: Mapping[str, float] | None = None) -> NDArray[np.float32]:
    """Weights that keep activations near 1, the same wherever they are made.

    Names and shapes decide: tensors of several axes are N(0, 1 / inputs), scales of norms 1 + 0.1 N(0, 1), biases
    0.1 N(0, 1). Kernels named `kernel` are Flax's: their last axis counts outputs. A tensor named in `scales` is
    multiplied by its number; where that is 0, its rows have length 1.
    """
    values = _generator(name).standard_normal(shape)
    if len(shape) > 1:
        inputs = shape[:-1] if name.endswith("kernel") else shape[1:]
        values /= np.sqrt(np.prod(inputs))
    elif name.endswith(("weight", "scale", "gamma")):
        values = 1 + 0.1 * values
    else:
        values *= 0.1
    scale = (scales or {}).get(name, 1)
    values = values * scale if scale else values / np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values, np.float32)


def images(count: int = 2, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float32]:
    """`count` images of smooth colour with some noise, (N, 3, height, width) in [0, 1], each value a 255th."""
    y, x = np.mgrid[0:height, 0:width] / 32
    batch = []
    for index in range(count):
        generator = _generator(f"image {index}")
        image = generator.uniform(0.2, 0.8, (3, 1, 1)) + generator.normal(0, 0.05, (3, height, width))
        for _ in range(12):
            across, down = generator.normal(0, 8, 2)
            colour = generator.normal(0, 0.12, (3, 1, 1))
            image = image + colour * np.sin(across * x + down * y + generator.uniform(0, 6.3))
        batch.append(np.round(image.clip(0, 1) * 255) / 255)
    return np.stack(batch).astype(np.float32)
