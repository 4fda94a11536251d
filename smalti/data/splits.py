"""The parts of a data set: their names, and how each image gets into one.

A split is the data set's own where it says one, otherwise by a hash of the image's name, so that adding images moves no
other image to another split.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from smalti.errors import SmaltiError

Split = Literal["train", "validation", "test", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT_PERCENT = 5  # of images without a split of their own, for validation and for test each
NAMES = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val"), "validation")
VALUES = {**NAMES, "training": "train"}  # of a column


@dataclass(frozen=True)
class Splits:
    """The splits of the images of a data set.

    Attributes:
        named: of each image, the split that the data itself names: by a column, a folder or a file's name; or None.
        usual: of each image, the split that it is in: the named one or another by a rule.
    """

    named: Sequence[str | None]
    usual: Sequence[str]

    def beside(self, elsewhere: Collection[str]) -> list[str | None]:
        """The split of each image where some splits are data of their own.

        An image that only a rule would hold out for one of them is trained on. One that is named so is in none (None).
        """
        return [
            own if own not in elsewhere else None if own == named else "train"
            for named, own in zip(self.named, self.usual, strict=True)
        ]


def assign_splits(names: Sequence[str], named: Sequence[str | None]) -> Splits:
    """Give every image a split: the named one, or where there is none one by a hash of its name.

    Where the data has training and test images but no validation images, some training images become validation.
    """
    known, usual = set(named), []
    for name, own in zip(names, named, strict=True):
        by_name = _split_by_name(name)
        if own is None:
            own = by_name
        elif own == "train" and "validation" not in known and by_name == "validation":
            own = "validation"
        usual.append(own)
    return Splits(named, usual)


def _split_by_name(name: str) -> str:
    rank = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 100
    return "test" if rank < HELD_OUT_PERCENT else "validation" if rank < 2 * HELD_OUT_PERCENT else "train"


def split_of_value(value: Any, where: str) -> str | None:
    """The split that a value of a column named `split` says; None where it is empty.

    Raises:
        SmaltiError: another word; the message begins with `where`.
    """
    text = "" if value is None else str(value).strip()
    if text and text.lower() not in VALUES:
        raise SmaltiError(f"{where}: the split {text!r} is none of train, validation, test; correct it or empty it")
    return VALUES.get(text.lower())
