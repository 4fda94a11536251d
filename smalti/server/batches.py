"""A tokenizer at work for many requests at a time.

An image has the same codes and the same reconstruction alone or among others (see `Autoencoder`), so that a batch gives
what each request would have got alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor

from smalti.models.autoencoder import PIXELS_AT_ONCE, Autoencoder, Encoded
from smalti.server.bodies import codes_of, image_of, png_of
from smalti.server.limits import Limits

T = TypeVar("T")
R = TypeVar("R")


class Batches:
    """The acts of one tokenizer; each takes the bodies of requests and gives, in order, results or errors.

    Args:
        model: with codes.
        limits: of what is taken.
    """

    def __init__(self, model: Autoencoder, limits: Limits):
        self.model, self.limits = model, limits

    def encode(self, files: list[bytes]) -> Iterator[dict[str, Any] | Exception]:
        """Image files to codes."""
        return in_batches(map(self._image, files), _pixels, self._encode)

    def reconstruct(self, files: list[bytes]) -> Iterator[bytes | Exception]:
        """Image files through their codes, as PNG."""
        return in_batches(map(self._image, files), _pixels, self._reconstruct)

    def decode(self, bodies: list[bytes]) -> Iterator[bytes | Exception]:
        """Codes to images, as PNG."""
        return in_batches(map(self._codes, bodies), self._pixels_of_codes, self._decode)

    def _encode(self, images: list[Tensor]) -> list[dict[str, Any]]:
        return [
            {"codes": codes.tolist(), "size": list(size), "model_hash": self.model.source_hash}
            for codes, size in self.model.encode_many(images)
        ]

    def _reconstruct(self, images: list[Tensor]) -> list[bytes]:
        return [png_of(image[None]) for image in self.model.reconstruct_many(images)]

    def _decode(self, encoded: list[Encoded]) -> list[bytes]:
        return [png_of(image[None]) for image in self.model.decode_many(encoded)]

    def _image(self, file: bytes) -> Tensor | Exception:
        return _tried(lambda: image_of(file, self.model, self.limits)[0])

    def _codes(self, body: bytes) -> Encoded | Exception:
        def read() -> Encoded:
            codes, size = codes_of(body, self.model, self.limits)
            height, width = (side * self.model.stride for side in codes.shape[-2:])
            return Encoded(codes[0], size or (height, width))

        return _tried(read)

    def _pixels_of_codes(self, encoded: Encoded) -> int:
        return encoded.codes.shape[-2] * encoded.codes.shape[-1] * self.model.stride**2


def in_batches(
    values: Iterable[T | Exception],
    pixels: Callable[[T], int],
    work: Callable[[list[T]], Sequence[R]],
    most: int = PIXELS_AT_ONCE,
) -> Iterator[R | Exception]:
    """Results of values in order, worked on as many at a time as have at most so many pixels together.

    Args:
        values: or the errors that stand in the place of one, which are passed on.
        pixels: of a value.
        work: of several values; where it fails, each of them is tried alone.
        most: pixels; a value that has more is worked on alone.
    """
    batch: list[T | Exception] = []
    held = 0
    for value in values:
        own = 0 if isinstance(value, Exception) else pixels(value)
        if batch and held + own > most:
            yield from _worked(batch, work)
            batch, held = [], 0
        batch.append(value)
        held += own
    yield from _worked(batch, work)


def _worked(batch: list[T | Exception], work: Callable[[list[T]], Sequence[R]]) -> Iterator[R | Exception]:
    results = iter(_each(work, [value for value in batch if not isinstance(value, Exception)]))
    return (value if isinstance(value, Exception) else next(results) for value in batch)


def _each(work: Callable[[list[T]], Sequence[R]], values: list[T]) -> Sequence[R | Exception]:
    found = _tried(lambda: work(values)) if values else []
    if not isinstance(found, Exception):
        return found
    return [found] if len(values) == 1 else [result for value in values for result in _each(work, [value])]


def _tried(work: Callable[[], R]) -> R | Exception:
    try:
        return work()
    except Exception as error:
        return error


def _pixels(image: Tensor) -> int:
    return image.shape[-2] * image.shape[-1]
