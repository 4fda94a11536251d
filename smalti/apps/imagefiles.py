"""The images that a verb was given, as files and folders or as a data set, a few at a time."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smalti.apps.output import say
from smalti.data.batches import BINARY_SEED, Pixels
from smalti.data.source import Source
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.files import atomic_path
from smalti.images.errors import BadImage
from smalti.images.folders import LeftOut, look_through, sentence
from smalti.images.pixels import model_images, to_float, to_uint8
from smalti.images.preprocessing import Preprocessing, Reading
from smalti.images.reading import fit, read_pixels, to_images, to_pil
from smalti.images.remarks import Remarks

T = TypeVar("T")
IMAGES_IN_CHUNK, PIXELS_IN_CHUNK = 256, 1 << 22
ARRAY = ".npy"


class ImageFiles:
    """The images among files and folders, a few at a time.

    A file that is named must be readable; bad ones in a folder are skipped, and `bad` says why.

    Args:
        names: files and folders.
        reading: what becomes of their pixels, see `Preprocessing.reading`.
    """

    def __init__(self, names: list[str], reading: Reading):
        self.remarks = Remarks()
        self.reading = replace(reading, remarks=self.remarks)
        self.bad: list[str] = []
        self.files: list[tuple[Path, bool]] = []  # (path, whether it was found in a folder)
        self.left_out: list[LeftOut] = []  # of the folders
        for path in map(Path, names):
            if not path.is_dir():
                self.files.append((path, False))
                continue
            images, left_out = look_through(path)
            if not images:
                raise SmaltiError("; ".join(filter(None, [f"{path}: no images in this folder", sentence(left_out)])))
            self.files += [(Path(image.path), True) for image in images]
            self.left_out += left_out

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
        self.remarks.say()
        check_bad(self.bad, len(self.files))
        if told := sentence(self.left_out):
            say(told)

    def chunks(self, what: str) -> Iterator[tuple[list[Path], list[Tensor]]]:
        """Files with their images (C, H, W), at most 256 or about 4 million pixels, and one image more."""
        files: list[Path] = []
        images: list[Tensor] = []
        for file, found in self.each(what, lambda file: to_images(file, self.reading)):
            files.append(file)
            images += found
            if sum(image[0].numel() for image in images) >= PIXELS_IN_CHUNK or len(images) >= IMAGES_IN_CHUNK:
                yield files, images
                files, images, found = [], [], []
        if files:
            yield files, images


def chunks_of(sizes: Sequence[tuple[int, int]]) -> list[range]:
    """The places of images of sizes (H, W), so many at a time as `ImageFiles.chunks` has."""
    starts, pixels = [0], 0
    for index, (height, width) in enumerate(sizes):
        if index > starts[-1] and (pixels + height * width > PIXELS_IN_CHUNK or index - starts[-1] == IMAGES_IN_CHUNK):
            starts.append(index)
            pixels = 0
        pixels += height * width
    return [range(*pair) for pair in pairwise([*starts, len(sizes)])]


def fitted(images: Sequence[str], preprocessing: Preprocessing) -> Tensor:
    """Named images as a model was trained on them, (B, C, H, W): the centre of each, resized.

    Args:
        images: files; or DATA:NUMBER, as "emoji:12", for an image of the test split of a data set.
        preprocessing: of the model.
    """
    centres = [fit(_read_named(image, preprocessing.reading), preprocessing.size) for image in images]
    return to_float(torch.stack([torch.from_numpy(centre) for centre in centres]))


def _read_named(image: str, reading: Reading) -> np.ndarray:
    data, _, number = image.rpartition(":")
    if not data or not number.isdecimal() or Path(image).exists():
        return read_pixels(Path(image), reading)
    source = open_data(data, "test")
    if int(number) >= len(source):
        raise SmaltiError(f"{image}: the test split of {data} has images 0 to {len(source) - 1}")
    return source.read(int(number), reading)


class DataImages:
    """The images of a data set, each as a model sees it in its evaluation, a few at a time; bad ones are left out.

    Args:
        source: the part of a data set.
        preprocessing: of the model.
    """

    def __init__(self, source: Source, preprocessing: Preprocessing):
        self.source, self.preprocessing = source, preprocessing
        self.bad: list[str] = []
        self.kept: list[int] = []  # of the source's images, those that `chunks` has given

    @property
    def labels(self) -> dict[str, list[str]]:
        """The texts of each kind of label for the images that `chunks` has given."""
        return {
            kind: [own[self.source.indices[index]] for index in self.kept] for kind, own in self.source.labels.items()
        }

    def chunks(self, what: str) -> Iterator[tuple[list[str], list[Tensor]]]:
        """Names with images (C, H, W), at most 256 at a time.

        Raises:
            SmaltiError: no good image at all.
        """
        pixels = Pixels(self.source, self.preprocessing, memory_bytes=0)
        generator = torch.Generator().manual_seed(BINARY_SEED)
        self.kept, self.bad = [], pixels.bad
        for indices, images in pixels.readable_batches(IMAGES_IN_CHUNK, what):
            self.kept += indices
            yield list(map(self.source.name_of, indices)), list(model_images(images, self.preprocessing, generator))
        check_bad(self.bad, len(self.source))
        if told := sentence(self.source.left_out):
            say(told)


def write_image(image: Tensor, target: Path, preprocessing: Preprocessing) -> None:
    """Write a float [0, 1] (C, H, W), as PNG or, to a name that ends in .npy, as an array (H, W, C).

    The array is of 8 bits a value; of a model with a value range it has values of that range, float32.
    """
    with atomic_path(target) as temporary:
        if target.suffix != ARRAY:
            to_pil(image)[0].save(temporary, "PNG")
            return
        scale = preprocessing.reading.value_range
        values = image.permute(1, 2, 0) if scale else to_uint8(image[None])[0]
        values = scale[0] + values * (scale[1] - scale[0]) if scale else values
        with temporary.open("wb") as file:
            np.save(file, values.numpy())


def suffix_for(preprocessing: Preprocessing) -> str:
    """That of files of a model's images: .png where that holds as many channels, otherwise .npy."""
    return ".png" if preprocessing.channels in (1, 3) else ARRAY


def check_bad(bad: Sequence[str], num_images: int) -> None:
    """Warn of bad images that were left out.

    Raises:
        SmaltiError: all of them are bad.
    """
    if len(bad) == num_images:
        raise SmaltiError(f"none of the {num_images} images can be read; the first: {bad[0]}")
    if bad:
        warnings.warn(f"skipped {len(bad)} bad images; the first: {bad[0]}", stacklevel=3)


def progress_bar(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a bar on stderr when there are more than two."""
    return tqdm(items, desc=what, file=sys.stderr, leave=False, disable=len(items) < 3)
