"""Mutated .smalti files of all coders: none gives a wrong image, or anything but a clear error."""

import struct
import zlib

from smalti.codec import Codec
from smalti.codec.container import MAGIC

from ..codec.conftest import save_model, save_prior
from ..codec.test_files import images_of, kinds_of_images
from ..conftest import draw_image
from .harness import Fault, changed_bytes

SHORT = 480


def prepare(folder):
    """(codec, file, its images) of every coder, with and without what --lossless stores."""
    model = save_model(folder / "model")
    prior = save_prior(folder / "prior", model, folder / "model")
    images = [draw_image(0, (13, 9)), draw_image(1, (8, 8)), kinds_of_images()[2].resize((9, 9))]
    files = []
    for coder in ("fixed", "histogram", "adaptive", "prior"):
        for lossless in (False, True):
            codec = Codec(model, prior, coder=coder, lossless=lossless)
            data = codec.compress(images, ["a", "b", "c"])
            files.append((codec, data, images_of(codec, data)))
    return files


def attempt(files, rng):
    """A mutant of one of them; half of the mutants get a header checksum that fits again."""
    codec, data, good = files[rng.integers(len(files))]
    changed = changed_bytes(data, rng)
    if images_of(codec, fix_checksum(changed) if rng.random() < 0.5 else changed) != good:
        raise Fault("a wrong image")
    return "the same images"


def fix_checksum(data: bytes) -> bytes:
    """A header that was changed, with a checksum that fits."""
    try:
        length, place, shift = 0, len(MAGIC) + 1, 0
        while True:
            byte = data[place]
            length |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                break
        end = place + length
        return data[:end] + struct.pack("<I", zlib.crc32(data[:end])) + data[end + 4 :]
    except IndexError:
        return data
