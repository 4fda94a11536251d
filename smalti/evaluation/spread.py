"""Values of every image of a split: means or ratios over all of it, and how far another sample of it would move them.

The spread is the standard deviation over bootstrap resamples of the images (Efron, 1979): what a number may differ by
without meaning anything.
"""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 100  # of means and ratios; the estimate of the deviation is within 7 %
SEED = 0


class PerImage:
    """Collects values of the images of a split, batch by batch; a metric is the sum of them over the sum of weights."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {}  # numerators and denominators, (B,) each

    def add(self, **values: Tensor | tuple[Tensor, Tensor] | None) -> None:
        """Add values (B,), of which the metric is the mean, or pairs (numerators, denominators); None is left out."""
        for name, value in values.items():
            if value is not None:
                above, below = value if isinstance(value, tuple) else (value, torch.ones_like(value))
                self.parts.setdefault(name, []).append((above.detach().double().cpu(), below.detach().double().cpu()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def value(self, name: str) -> float:
        """The metric over all images; 0 where nothing is there to be divided by."""
        above, below = (part.sum().item() for part in self._whole(name))
        return above / below if below else 0.0

    def spread(self, name: str) -> float:
        """The standard deviation of `value` over bootstrap resamples of the images."""
        above, below = self._whole(name)
        counts = bootstrap_counts(len(above), RESAMPLES)
        return deviation((counts @ above) / (counts @ below).clamp(min=1e-300))

    def _whole(self, name: str) -> tuple[Tensor, Tensor]:
        above, below = zip(*self.parts[name], strict=True)
        return torch.cat(above), torch.cat(below)


def deviation(values: Tensor) -> float:
    """The standard deviation of the values (R,) of resamples."""
    return values.std().item()


@functools.lru_cache(maxsize=4)
def bootstrap_counts(num_images: int, resamples: int, seed: int = SEED) -> Tensor:
    """How often each image occurs in each resample, float64 (R, N); the rows sum to N, always the same."""
    rng = np.random.default_rng([seed, num_images])
    return torch.from_numpy(rng.multinomial(num_images, np.full(num_images, 1 / num_images), resamples)).double()
