"""What a run validates on, and the means over it."""

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor

from smalti.errors import SmaltiError
from smalti.training.settings import RunSettings

T = TypeVar("T")


def held_out(read: Callable[[int], T], settings: RunSettings) -> T | None:
    """What `read(count)` gives of the validation split; None where the run validates nothing.

    Where there is no such split, a line on stderr says so.

    Raises:
        SmaltiError: there is none, and the settings need one.
    """
    if not settings.every("validate"):
        return None
    try:
        return read(settings.validation_images or sys.maxsize)
    except SmaltiError as error:
        why = str(error).partition(";")[0]
    for name, (given, _) in settings.need_validation.items():
        if given is not None:
            remedy = f"leave --{name} out, or put some images into a folder validation/ beside train/"
            raise SmaltiError(f"--{name} {given} needs a validation split; {why}; {remedy}")
    print(f"nothing is validated while training: {why}", file=sys.stderr)
    return None


class Means:
    """Means over images of what batches tell: summed first, divided once, read from the device at the end."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, means: Mapping[str, Tensor], images: int) -> None:
        """Add the means (scalars) over a batch of so many images."""
        for name, value in means.items():
            weighted = value.double() * images
            self.sums[name] = self.sums[name] + weighted if name in self.sums else weighted
        self.count += images

    def result(self) -> dict[str, float]:
        """The means over all images."""
        return {name: total.item() / self.count for name, total in self.sums.items()}
