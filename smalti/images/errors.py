"""The error of a bad image, which a run over a folder skips and counts."""

from smalti.errors import SmaltiError


class BadImage(SmaltiError):
    """An image file that cannot be read; a folder run skips and counts it."""
