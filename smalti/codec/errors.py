"""What can be wrong with a file."""

from smalti.errors import SmaltiError


class DamagedFile(SmaltiError):
    """Not a file of `smalti compress`, or not as it was written: cut off, changed, or of another version."""


class CannotDecode(SmaltiError):
    """The file is sound, but its codes cannot be found again: another model, or too much noise in its logits."""


class NotReadBack(SmaltiError):
    """What was just written is not what is read, or might not be on another machine: it is not kept."""
