"""From a source to batches of uint8 (B, H, W, C): cached in memory if they fit, otherwise streamed by threads."""

import itertools
import math
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smalti import processes
from smalti.data.config import Augment, Data
from smalti.data.source import Source
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.pixels import model_images
from smalti.images.preprocessing import Preprocessing
from smalti.images.reading import fit
from smalti.images.remarks import Remarks

T = TypeVar("T")
MEMORY_BYTES = 2 << 30  # a data set whose resized pixels take less is cached in memory
BINARY_SEED = 0  # of fixed binarisation
CHANCES = 5  # random numbers for each image: of its flip, and of its shift or its window
SHIFT = 16  # images are shifted by at most 1/16 of their size


def reading_threads() -> int:
    """How many threads read images: one for each core that this process may use for itself, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // processes.beside()))


def read_ahead(function: Callable[[int], T], numbers: Iterable[int], threads: int) -> Iterator[T]:
    """function(number) for each number, in order, prefetched by threads: at most two results each."""
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[T]]()
    try:
        for number in numbers:
            waiting.append(pool.submit(function, number))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Pixels:
    """The images of a source in one size: uint8 (H, W, C) each.

    Args:
        source: where the images come from.
        preprocessing: H, W and C, what is black and white, and whether every value becomes 0 or 255, sampled once as a
            Bernoulli: always the same for the same image.
        memory_bytes: hold them in memory when they take at most this.
        progress: show a bar while loading.

    Raises:
        SmaltiError: of several images fewer than two can be read, or the only one cannot. Bad images are otherwise
            skipped, counted and warned about.
    """

    def __init__(
        self, source: Source, preprocessing: Preprocessing, *, memory_bytes: int = MEMORY_BYTES, progress: bool = False
    ):
        self.source, self.size, self.remarks = source, preprocessing.size, Remarks()
        self.reading = replace(preprocessing.reading, at_least=self.held_size, remarks=self.remarks)
        self.fixed_binary = preprocessing.binarize == "fixed"
        self.bad: list[str] = []
        self.memory: Any = None  # (N, H, W, C), or whatever gives an image by its index
        if len(source) * math.prod(self.held_size) * preprocessing.channels <= memory_bytes:
            self.memory = self._load(progress)

    def __len__(self) -> int:
        return len(self.source) if self.memory is None else len(self.memory)

    @property
    def held_size(self) -> tuple[int, int]:
        """(H, W) in which images are held, or read."""
        return self.size

    @property
    def prefetched(self) -> bool:
        """Whether a batch takes so long that threads should make it ahead."""
        return self.memory is None

    def _load(self, progress: bool) -> Any:
        count = len(self.source)
        bar = tqdm(self.readable(), "reading images", count, disable=not progress, file=sys.stderr, leave=False)
        held = self._hold(image for _, image in bar)
        if held is None:
            return None
        if len(held) < min(2, count):  # one image can be overfitted; all but one bad is no data set
            first = f"; the first: {self.bad[0]}" if self.bad else ""
            raise SmaltiError(f"{self.source.name}: only {len(held)} of {count} images can be read{first}")
        if self.bad:
            warnings.warn(f"skipped {len(self.bad)} bad images; the first: {self.bad[0]}", stacklevel=3)
        return held

    def _hold(self, images: Iterator[np.ndarray]) -> Any:
        """What `memory` becomes; None where it would be too large."""
        pixels, count = np.empty((len(self.source), *self.size, self.reading.channels), dtype=np.uint8), 0
        for count, image in enumerate(images, start=1):
            pixels[count - 1] = image
        return pixels[:count]

    def readable(self) -> Iterator[tuple[int, np.ndarray]]:
        """The images that can be read, in order: (index in the source, uint8 (H, W, C)); `bad` gets the others.

        What is to be said of some that are read all the same is warned about at the end.
        """
        for index, image in enumerate(read_ahead(self._read_or_error, range(len(self.source)), reading_threads())):
            if isinstance(image, BadImage):
                self.bad.append(str(image))
            else:
                yield index, image
        self.remarks.say()

    def readable_batches(self, batch_size: int, what: str, progress: bool = True) -> Iterator[tuple[list[int], Tensor]]:
        """The images that can be read, in order, so many at a time: (indices in the source, uint8 (B, H, W, C)).

        A bar says `what` while they are read.
        """
        bar = tqdm(self.readable(), what, len(self.source), disable=not progress, file=sys.stderr, leave=False)
        found = iter(bar)  # a bar is no iterator: it would begin anew with each of the slices
        while some := [*itertools.islice(found, batch_size)]:
            yield [index for index, _ in some], torch.from_numpy(np.stack([image for _, image in some]))

    def _read_or_error(self, index: int) -> np.ndarray | BadImage:
        try:
            return self._read(index)
        except BadImage as error:
            return error

    def _read(self, index: int) -> np.ndarray:
        pixels = self._fitted(self.source.read(index, self.reading))
        return _binary(pixels, int(self.source.indices[index])) if self.fixed_binary else pixels

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        return fit(pixels, self.size)

    def gather(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images by index, uint8 (B, H, W, C); when streaming, a bad image is replaced by the next good one."""
        if self.memory is not None:
            return self.memory[np.asarray(indices)]
        pixels = np.stack([self._read_good(int(index)) for index in indices])
        self.remarks.say()
        return pixels

    def _read_good(self, index: int) -> np.ndarray:
        found = None
        for offset in range(min(32, len(self))):
            found = self._read_or_error((index + offset) % len(self))
            if not isinstance(found, BadImage):
                return found
        tried = min(32, len(self))
        raise SmaltiError(f"{self.source.name}: {tried} bad image{'s in a row' * (tried > 1)}; the last: {found}")

    def views(self, indices: Sequence[int] | np.ndarray, augment: Augment, chances: np.ndarray) -> np.ndarray:
        """Images by index as training sees them, uint8 (B, H, W, C), see `augmented`."""
        return augmented(self.gather(indices), augment, chances)

    def evenly(self, count: int) -> Tensor:
        """At most `count` evenly spaced images of the source: uint8 (B, H, W, C)."""
        return torch.from_numpy(self.gather(evenly_spread(len(self), count)))

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All images once, in order: batches of uint8 (B, H, W, C)."""
        for start in range(0, len(self), batch_size):
            yield torch.from_numpy(self.gather(range(start, min(start + batch_size, len(self)))))


def _binary(pixels: np.ndarray, number: int) -> np.ndarray:
    """Every value as 0 or 255, sampled once as a Bernoulli: always the same for the image of a number."""
    uniform = np.random.default_rng([BINARY_SEED, number]).random(pixels.shape)
    return np.where(uniform * 255 < pixels, np.uint8(255), np.uint8(0))


class Originals:
    """The images of a source, each at its own size, one after the other: one is in memory at a time.

    Args:
        source: where the images come from.
        preprocessing: of their pixels; its size is of no account.
    """

    def __init__(self, source: Source, preprocessing: Preprocessing):
        self.source, self.remarks = source, Remarks()
        self.reading = replace(preprocessing.reading, remarks=self.remarks)
        self.fixed_binary = preprocessing.binarize == "fixed"
        self.bad: list[str] = []

    def __len__(self) -> int:
        return len(self.source) - len(self.bad)

    def in_order(self, batch_size: int = 1) -> Iterator[Tensor]:
        """All images that can be read, once, in order: uint8 (1, H, W, C) whatever `batch_size` is.

        Raises:
            SmaltiError: none can be read.
        """
        self.bad = []
        for index in range(len(self.source)):
            try:
                pixels = self.source.read(index, self.reading)
            except BadImage as error:
                self.bad.append(str(error))
                continue
            pixels = _binary(pixels, int(self.source.indices[index])) if self.fixed_binary else pixels
            yield torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None]
        self.remarks.say()
        if self.bad and not len(self):
            raise SmaltiError(f"{self.source.name}: no image can be read; the first: {self.bad[0]}")
        if self.bad:
            warnings.warn(f"skipped {len(self.bad)} bad images; the first: {self.bad[0]}", stacklevel=2)


def evenly_spread(length: int, count: int) -> list[int]:
    """At most `count` of the places 0 to `length` - 1, evenly spread, with the first and the last."""
    return torch.linspace(0, length - 1, min(count, length)).long().tolist()


def some_images(data: Data, split: Split, preprocessing: Preprocessing, count: int) -> Tensor:
    """At most `count` images of a split, evenly spread, as a model sees them: float32 (B, C, H, W), always the same."""
    pixels = Pixels(open_data(data, split), preprocessing, memory_bytes=0).evenly(count)
    return model_images(pixels, preprocessing, torch.Generator().manual_seed(BINARY_SEED))


class Batches:
    """Endless shuffled batches: batch `step` is a function of (seed, step), so that runs resume exactly.

    Every image is seen once before any is seen again; the batch of one process is that of several, one part after the
    other, with the same augmentation.

    Args:
        pixels: the images.
        batch_size: B, images per rank and step.
        seed: of the permutations and of the augmentation.
        rank: of this process, below `world`.
        world: number of processes.
        augment: "none", "flip" (left-right, half of the time), "flip_shift" (and a shift of up to 1/16 of the size),
            "crop" (a random window of `smalti.data.crops.Crops`, and a flip).
        workers: threads that make batches ahead, of images that are not cached in memory or resized each time.
            Decoders and resizing release the GIL, so that threads do as well as processes, without copies.
    """

    def __init__(
        self,
        pixels: Pixels,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        augment: Augment = "none",
        workers: int | None = None,
    ):
        if augment not in get_args(Augment):
            raise SmaltiError(f"augment must be one of {', '.join(get_args(Augment))}, not {augment!r}")
        if batch_size < 1:
            raise SmaltiError(f"batch_size must be at least 1, not {batch_size}")
        self.pixels, self.batch_size, self.seed, self.rank, self.world = pixels, batch_size, seed, rank, world
        self.workers = reading_threads() if workers is None else workers
        self.augment: Augment = augment
        self.order = Epochs(len(pixels), seed=seed)

    def batch(self, step: int) -> Tensor:
        """The images of optimiser step `step` for this rank: uint8 (B, H, W, C)."""
        first = (step * self.world + self.rank) * self.batch_size
        whole = np.random.default_rng([self.seed, 1, step]).random((self.world * self.batch_size, CHANCES))
        chances = whole[self.rank * self.batch_size :][: self.batch_size]
        return torch.from_numpy(self.pixels.views(self.order(first, self.batch_size), self.augment, chances))

    def iterate(self, start: int = 0) -> Iterator[Tensor]:
        """The batches of steps `start`, `start` + 1, and so on without end."""
        ahead = self.workers and self.pixels.prefetched
        steps = itertools.count(start)
        yield from read_ahead(self.batch, steps, self.workers) if ahead else map(self.batch, steps)


class Epochs:
    """An endless sequence of permutations of 0 to `count`, with random access.

    Every number occurs once before any occurs again; the result depends on positions and `seed` alone.
    """

    def __init__(self, count: int, *, seed: int):
        self.count, self.seed = count, seed
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, first: int, places: int) -> np.ndarray:
        """The numbers at `first`, `first` + 1, ..., (places,)."""
        parts = []
        while places:
            epoch, offset = divmod(first, self.count)
            parts.append(self._order(epoch)[offset : offset + places])
            first, places = first + len(parts[-1]), places - len(parts[-1])
        return np.concatenate(parts)

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch; the last two are kept."""
        with self._lock:
            if epoch not in self._orders:
                for old in [number for number in self._orders if number < epoch - 1]:
                    del self._orders[old]
                self._orders[epoch] = np.random.default_rng([self.seed, 0, epoch]).permutation(self.count)
            return self._orders[epoch]


def augmented(pixels: np.ndarray, augment: Augment, chances: np.ndarray) -> np.ndarray:
    """The uint8 (B, H, W, C) with every image flipped and shifted as `augment` says; edges are repeated.

    `chances` (B, CHANCES) are uniform in [0, 1): what is random about each image.
    """
    assert augment != "crop", "crops are made of images in their own form: smalti.data.crops"
    if augment == "none":
        return pixels
    _, height, width, _ = pixels.shape
    pixels = flipped(pixels, chances)
    if augment == "flip":
        return pixels
    reach = max(1, math.ceil(height / SHIFT))
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    tops, lefts = (chances[:, 1:3] * (2 * reach + 1)).astype(np.int64).T
    return np.stack([image[y : y + height, x : x + width] for image, y, x in zip(padded, tops, lefts, strict=True)])


def flipped(pixels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """The uint8 (B, H, W, C) with each image left-right, half of the time."""
    flip = chances[:, 0] < 0.5
    return np.where(flip[:, None, None, None], pixels[:, :, ::-1], pixels)
