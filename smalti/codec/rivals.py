"""What the formats of images that everybody has make of an image: JPEG, WebP and AVIF, as Pillow writes them."""

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from PIL import Image, features


class Format(NamedTuple):
    """A format of files.

    Attributes:
        kind: Pillow's name of it.
        feature: what Pillow's build has to have for it.
        least: the smallest quality; the largest is 100.
        options: that make its files small.
    """

    kind: str
    feature: str
    least: int
    options: Mapping[str, Any]


FORMATS = {
    "JPEG": Format("JPEG", "jpg", 1, {"optimize": True}),
    "WebP": Format("WEBP", "webp", 0, {"method": 6}),
    "AVIF": Format("AVIF", "avif", 0, {"speed": 4}),
}
BEST = 100


def at_hand() -> list[str]:
    """The names of the formats that this Pillow writes."""
    return [name for name, form in FORMATS.items() if features.check(form.feature)]


def written(image: Image.Image, name: str, quality: int) -> bytes:
    """An image as a file of a format."""
    file, form = io.BytesIO(), FORMATS[name]
    image.save(file, form.kind, quality=quality, **form.options)
    return file.getvalue()


def at_most(image: Image.Image, name: str, num_bytes: int) -> tuple[int, bytes]:
    """(quality, file): of the largest quality whose file has at most so many bytes, found by halving.

    The one of the smallest quality, where that has more.
    """
    *_, best = tries(image, name, num_bytes)
    return best


def tries(image: Image.Image, name: str, num_bytes: int) -> Iterator[tuple[int, bytes]]:
    """On the way to `at_most`, after each file that is written: the best so far."""
    low, high = FORMATS[name].least, BEST + 1
    best = written(image, name, low)
    yield low, best
    while high - low > 1 and len(best) <= num_bytes:
        middle = (low + high) // 2
        file = written(image, name, middle)
        if len(file) <= num_bytes:
            low, best = middle, file
        else:
            high = middle
        yield low, best
