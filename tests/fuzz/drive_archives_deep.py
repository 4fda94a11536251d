"""Mutated .smalti files whose checksums all fit, as anyone can make them: wrong images, but no crash, no hang, no bomb.

`most_pixels` is small here: an image of a few bytes may be large, and a decoder takes its time for it.
"""

from unittest import mock

from smalti.codec.container import Sections

from .archives import changed_contents, changed_numbers, fix_checksum, good_files, images_of
from .harness import changed_bytes

SHORT = 250
MOST_PIXELS = 1 << 18


def prepare(folder):
    """(codec, file)."""
    return good_files(folder, most_pixels=MOST_PIXELS)


def attempt(files, rng):
    """A mutant of one of them; every checksum of a chunk fits."""
    codec, data = files[rng.integers(len(files))]
    how = rng.random()
    if how < 0.6:
        changed = changed_contents(data, rng)
    else:
        changed = changed_numbers(data, rng) if how < 0.8 else fix_checksum(changed_bytes(data, rng))
    with mock.patch.object(Sections, "pack", lambda sections, _: sections.stored):
        images_of(codec, changed)
    return "images"
