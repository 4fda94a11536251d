"""Random numbers of a batch that several processes share: what one process with the whole batch would have.

In a block `shared(seed)` every process makes the numbers of all rows from the same seed and takes those of its own
part, so that noise, masks and windows do not depend on how many processes there are. Elsewhere, and in one process, the
numbers are those of torch's global generator. Those of activations (dropout) are made by each process alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from smalti import processes

_generators: dict[torch.device, torch.Generator] | None = None  # by device, in a block
_seed = 0


@contextlib.contextmanager
def shared(seed: int) -> Iterator[None]:
    """A block in which the rows of all processes are one batch: equal parts, in the order of their ranks."""
    global _generators, _seed
    before = _generators, _seed
    _generators, _seed = ({}, seed) if processes.world() > 1 else (None, 0)
    try:
        yield
    finally:
        _generators, _seed = before


def uniform(*shape: int, like: Tensor | None = None, axis: int = 0) -> Tensor:
    """Uniform in [0, 1), float32 on the CPU, or of the type and on the device of `like`; rows along `axis`."""
    return _rows(torch.rand, shape, like, axis)


def normal(*shape: int, like: Tensor | None = None, axis: int = 0) -> Tensor:
    """Standard normal; see `uniform`."""
    return _rows(torch.randn, shape, like, axis)


def integers(high: int, *shape: int, device: torch.device | str = "cpu") -> Tensor:
    """Integers in [0, high), int64; rows along the first axis."""
    return _rows(lambda shape, **options: torch.randint(high, shape, **options), shape, None, 0, device=device)


def seed() -> int:
    """A seed, the same in all processes within `shared`."""
    generator = _generator_on(torch.device("cpu"))
    return int(torch.randint(1 << 62, (), generator=generator))


def whole(rows: int) -> int:
    """How many rows the whole batch has, of which this process has so many."""
    return rows if _generators is None else rows * processes.world()


def first_row(rows: int) -> int:
    """The place in the whole batch of this process's first row, of `rows` that it has; 0 outside of `shared`."""
    return 0 if _generators is None else processes.rank() * rows


def _rows(
    sample: Callable[..., Tensor], shape: Sequence[int], like: Tensor | None, axis: int, **options: Any
) -> Tensor:
    if like is not None:
        options |= {"device": like.device, "dtype": like.dtype}
    generator = _generator_on(torch.device(options.get("device", "cpu")))
    if generator is None:
        return sample(shape, **options)
    whole = [size * processes.world() if place == axis else size for place, size in enumerate(shape)]
    return sample(whole, generator=generator, **options).narrow(axis, first_row(shape[axis]), shape[axis])


def _generator_on(device: torch.device) -> torch.Generator | None:
    """The generator of all processes; None outside of `shared`, where it is torch's own."""
    if _generators is None:
        return None
    if device not in _generators:
        _generators[device] = torch.Generator(device).manual_seed(_seed)
    return _generators[device]
