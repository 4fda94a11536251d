"""Mutated .smalti files of all coders: none gives a wrong image, or anything but a clear error."""

from .archives import changed_numbers, fix_checksum, good_files, images_of
from .harness import Fault, changed_bytes

SHORT = 480


def prepare(folder):
    """(codec, file, its images)."""
    return [(codec, data, images_of(codec, data)) for codec, data in good_files(folder)]


def attempt(files, rng):
    """A mutant of one of them: of its bytes, or of its numbers; most get a header checksum that fits again."""
    codec, data, good = files[rng.integers(len(files))]
    if rng.random() < 0.5:
        changed = changed_numbers(data, rng)
    else:
        changed = changed_bytes(data, rng)
        changed = fix_checksum(changed) if rng.random() < 0.5 else changed
    found = images_of(codec, changed)
    if found != good[: len(found)]:
        raise Fault("a wrong image")
    return "the same images"
