"""Random-resized crops: windows of an image at a random place, of a random size and form, as a training sees them."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch

from smalti.data.batches import MEMORY_BYTES, Pixels, flipped
from smalti.data.config import Augment
from smalti.data.source import Source
from smalti.errors import SmaltiError
from smalti.images.pixels import shrink
from smalti.images.preprocessing import Preprocessing
from smalti.images.reading import fit, largest_window

ASPECT = 4 / 3  # a window is at most this much wider or taller than the training's images


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def at_random(
        cls, image: tuple[int, int], size: tuple[int, int], smallest: float, chances: Sequence[float] | np.ndarray
    ) -> Self:
        """A window of an image (H, W), for images of `size` (h, w) to train on.

        Its area is uniform between `smallest` and 1, in areas of the largest window of the form of `size` that the
        image has; its form is that of `size` times an aspect between 3/4 and 4/3, log-uniform; its place is uniform
        over the whole image. No side becomes smaller than that of `size` where the image's is not: crops of small
        images are not enlarged, so that what a model learns of is as sharp as its images. `chances` are four uniform
        numbers in [0, 1): of area, aspect and place.
        """
        tall, wide = largest_window(image, size)
        area, aspect = smallest + (1 - smallest) * chances[0], ASPECT ** (2 * chances[1] - 1)
        height = min(image[0], max(size[0], round(tall * math.sqrt(area / aspect))))
        width = min(image[1], max(size[1], round(wide * math.sqrt(area * aspect))))
        top, left = int(chances[2] * (image[0] - height + 1)), int(chances[3] * (image[1] - width + 1))
        return cls(top, left, height, width)

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """The part of pixels (H, W, C), a view."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


class Crops(Pixels):
    """The images of a source in their own form, held larger than they are trained on, and random windows of them.

    They are held just as large as the smallest window needs to be none the coarser for it, where the files are: their
    largest window of the training's form has 1 / sqrt(smallest) times its sides.

    Args:
        source: where the images come from.
        preprocessing: H, W and C, and what is black and white.
        smallest: area of the smallest window, see `Window.at_random`.
        memory_bytes: hold them in memory when they take at most this; otherwise every window is read from its file.
        progress: show a bar while loading.

    Raises:
        SmaltiError: as of `Pixels`; or fixed binarisation, which belongs to pixels that stay.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        *,
        smallest: float,
        memory_bytes: int = MEMORY_BYTES,
        progress: bool = False,
    ):
        if preprocessing.binarize == "fixed":
            raise SmaltiError("augment crop makes new pixels each time; give --binarize dynamic, or --augment flip")
        self.smallest, self.memory_bytes = smallest, memory_bytes
        super().__init__(source, preprocessing, memory_bytes=memory_bytes, progress=progress)

    @property
    def held_size(self) -> tuple[int, int]:
        """(H, W) of the largest window of the training's form, of large images."""
        height, width = (math.ceil(side / math.sqrt(self.smallest)) for side in self.size)
        return height, width

    @property
    def prefetched(self) -> bool:
        """Always: windows are resized each time."""
        return True

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        """The image in its own form, smaller where it is larger than held."""
        image = pixels.shape[:2]
        tall, wide = largest_window((image[0], image[1]), self.size)
        share = max(self.held_size[0] / tall, self.held_size[1] / wide)
        if share >= 1:
            return pixels
        return resized(pixels, (max(1, round(image[0] * share)), max(1, round(image[1] * share))))

    def _hold(self, images: Iterator[np.ndarray]) -> list[np.ndarray] | None:
        held, room = [], self.memory_bytes
        for image in images:
            held.append(image)
            room -= image.nbytes
            if room < 0:  # wider or taller than the training's form
                self.bad.clear()
                return None
        return held

    def _image(self, index: int) -> np.ndarray:
        return self._read_good(index) if self.memory is None else self.memory[index]

    def gather(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The largest centres of images by index, uint8 (B, H, W, C), as evaluation sees them."""
        return np.stack([fit(self._image(int(index)), self.size) for index in indices])

    def views(self, indices: Sequence[int] | np.ndarray, augment: Augment, chances: np.ndarray) -> np.ndarray:
        """Images by index as training sees them, uint8 (B, H, W, C): with augment crop a window of each, and flips."""
        if augment != "crop":
            return super().views(indices, augment, chances)
        windows = []
        for index, own in zip(indices, chances, strict=True):
            image = self._image(int(index))
            window = Window.at_random((image.shape[0], image.shape[1]), self.size, self.smallest, own[1:])
            windows.append(resized(window.of(image), self.size))
        self.remarks.say()
        return flipped(np.stack(windows), chances)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W, C) as uint8 (h, w, C), see `shrink`."""
    return shrink(torch.from_numpy(np.ascontiguousarray(pixels))[None], size)[0].numpy()


def open_pixels(
    source: Source, preprocessing: Preprocessing, crop_area: float | None, *, progress: bool = False
) -> Pixels:
    """The images of a source for a training: in one size, or for windows of at least the area `crop_area`."""
    if crop_area is None:
        return Pixels(source, preprocessing, progress=progress)
    return Crops(source, preprocessing, smallest=crop_area, progress=progress)
