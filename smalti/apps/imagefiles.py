"""The image files and folders that a verb was given, a few at a time."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from smalti.errors import SmaltiError
from smalti.images.pixels import to_float
from smalti.images.preprocessing import Preprocessing
from smalti.images.reading import BadImage, find_images, fit, read_image, to_images

T = TypeVar("T")
IMAGES_IN_CHUNK, PIXELS_IN_CHUNK = 256, 1 << 24


class ImageFiles:
    """The images among files and folders, a few at a time.

    A file that is named must be readable; bad ones in a folder are skipped, and `bad` says why.

    Args:
        names: files and folders.
        channels: of the images, 1 or 3.
    """

    def __init__(self, names: list[str], channels: int):
        self.channels = channels
        self.bad: list[str] = []
        self.files: list[tuple[Path, bool]] = []  # (path, whether it was found in a folder)
        for path in map(Path, names):
            inside = find_images(path) if path.is_dir() else []
            if path.is_dir() and not inside:
                raise SmaltiError(f"{path}: no images in this folder")
            self.files += [(file, True) for file in inside] or [(path, False)]

    def each(self, what: str, read: Callable[[Path], T]) -> Iterator[tuple[Path, T]]:
        """(file, what `read` makes of it), one by one, with a bar that says `what`; bad files in folders are left out.

        Raises:
            SmaltiError: a bad file that was named, or no good one at all.
        """
        self.bad = []
        for file, in_folder in progress_bar(self.files, what):
            try:
                found = read(file)
            except BadImage as error:
                if not in_folder:
                    raise
                self.bad.append(str(error))
            else:
                yield file, found
        if len(self.bad) == len(self.files):
            raise SmaltiError(f"none of the {len(self.files)} images can be read; the first: {self.bad[0]}")
        if self.bad:
            warnings.warn(f"skipped {len(self.bad)} bad images; the first: {self.bad[0]}", stacklevel=2)

    def chunks(self, what: str) -> Iterator[tuple[list[Path], list[Tensor]]]:
        """Files with their images (C, H, W), at most 256 or about 16 million pixels at a time."""
        files: list[Path] = []
        images: list[Tensor] = []
        for file, found in self.each(what, lambda file: to_images(file, self.channels)):
            files.append(file)
            images += found
            if sum(image[0].numel() for image in images) >= PIXELS_IN_CHUNK or len(images) >= IMAGES_IN_CHUNK:
                yield files, images
                files, images = [], []
        if files:
            yield files, images


def fitted(files: Sequence[str], preprocessing: Preprocessing) -> Tensor:
    """Named images as a model was trained on them, (B, C, H, W): the centre square of each, resized."""
    squares = [fit(read_image(Path(file), preprocessing.channels), preprocessing.image_size) for file in files]
    return to_float(torch.stack([torch.from_numpy(square) for square in squares]))


def unused(path: Path, taken: list[str]) -> Path:
    """`path`, or path-2, path-3, ... when that name is taken."""
    candidate, number = path, 1
    while str(candidate) in taken:
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def progress_bar(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a bar on stderr when there are more than two."""
    return tqdm(items, desc=what, file=sys.stderr, leave=False, disable=len(items) < 3)
