"""Files as Pillow images: what may be opened at all, and errors of one line for everything that goes wrong."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from smalti.errors import SmaltiError
from smalti.images.errors import BadImage
from smalti.images.kinds import kind_of_bytes

LARGEST_PX = 200_000_000  # pixels; a file that claims more is taken for a decompression bomb
SMALL_PX = 1 << 24  # pixels that a file of any length may claim
PX_PER_BYTE = 1000  # that a longer one may: about what deflate can do at its best
LONGEST_REASON = 120


@contextmanager
def bad_images(name: str) -> Iterator[None]:
    """Turn any error in reading an image of this name into a `BadImage`."""
    try:
        yield
    except (SmaltiError, UserWarning):  # a warning that is an error here
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"{name}: claims far too many pixels (a decompression bomb?); make it smaller") from error
    except FileNotFoundError as error:
        raise BadImage(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"{name}: not an image, or of a kind that Pillow does not read") from error
    except Exception as error:  # what Pillow and the like can raise is no list that ends
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise BadImage(f"{name}: cut off or damaged ({reason})") from error


def open_image(file: Path | str | bytes | Image.Image, name: str) -> Image.Image:
    """A Pillow image, its pixels not yet read; to be used inside `bad_images`.

    Raises:
        BadImage: more pixels than are read, or than a file of this length has.
    """
    if isinstance(file, Image.Image):
        image, most = file, LARGEST_PX
    else:
        data = read_bytes(file)
        if (kind := kind_of_bytes(data)) and not kind.is_read:
            raise BadImage(f"{name}: {kind.name}, which smalti does not read; {kind.remedy}")
        image = Image.open(io.BytesIO(data))
        most = min(LARGEST_PX, max(SMALL_PX, PX_PER_BYTE * len(data)))
    if image.format == "EPS":  # a program, which Pillow would run
        raise UnidentifiedImageError
    if image.width * image.height > most:
        why = f"over {LARGEST_PX:,} pixels" if most == LARGEST_PX else "too many pixels for so short a file"
        raise BadImage(f"{name}: {image.width}x{image.height} is {why}; make it smaller")
    return image


def read_bytes(file: Path | str | bytes) -> bytes:
    """What is in a file; bytes are it already."""
    if not isinstance(file, bytes):
        if not isinstance(file, str | Path):
            raise BadImage(f"cannot read an image from {type(file).__name__}: give a path, bytes or a Pillow image")
        path = Path(file)
        if path.is_dir():
            raise BadImage(f"{path}: a folder where an image was expected")
        if path.exists() and not path.is_file():  # a pipe, or a device, may never end
            raise BadImage(f"{path}: no regular file; save what it gives as one")
        file = path.read_bytes()
    if not file:
        raise OSError("0 bytes")
    return file
