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
VALUES = {  # of a column: fewer words than of folders, for any other word is an error there
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
BY_HASH = "a hash of the name"
RANKS = {"test": 0, "train": 1, "validation": 2, None: 3}  # of a file with names in several splits: which counts


@dataclass(frozen=True)
class Splits:
    """The splits of the images of a data set.

    Attributes:
        named: of each image, the split that the data itself names: by a column, a folder or a file's name; or None.
        usual: of each image, the split that it is in: the named one or another by a rule.
        reasons: of each image, what says so: a folder, a column, a rule.
    """

    named: Sequence[str | None]
    usual: Sequence[str]
    reasons: Sequence[str]

    def beside(self, elsewhere: Collection[str]) -> tuple[list[str | None], list[str]]:
        """The split of each image, and the reason, where some splits are data of their own.

        An image that only a rule would hold out for one of them is trained on. One that is named so is in none (None).
        """
        splits, reasons = list[str | None](), list[str]()
        for named, own, reason in zip(self.named, self.usual, self.reasons, strict=True):
            splits.append(own if own not in elsewhere else None if own == named else "train")
            reasons.append(reason if own not in elsewhere else f"{reason}; --{own} is other data")
        return splits, reasons


def notes_on(splits: Splits, elsewhere: Collection[str]) -> list[str]:
    """What a person may not expect where a data set names the split of some images, a sentence each."""
    named = {*splits.named, *elsewhere} - {None}
    notes = []
    if "train" in named and "test" not in named:
        notes.append("the data names images to train on and none to test with: nothing is in the test split")
    rest = sum(own is None for own in splits.named)
    if rest and splits.named.count("train") < len(splits.named) - rest and "train" not in named:
        what = " and ".join(sorted(str(split) for split in {*splits.named} - {None}))
        notes.append(f"the data names images for {what} and none to train on: the other {rest:,} are divided by a hash")
    return notes


def assign_splits(
    names: Sequence[str], named: Sequence[str | None], reasons: Sequence[str], known: Collection[str | None] = ()
) -> Splits:
    """Give every image a split: the named one, or where there is none one by a hash of its name.

    Where the data names training images but no validation images, some training images become validation. Where nothing
    would be left to train on, as of a single image, nothing is held out by a hash.

    Args:
        names: of the images.
        named: the split that the data itself names for each, or None.
        reasons: for each named one, what says so.
        known: further splits that the data names, for images that are in another one too.
    """
    known, usual, why = {*named, *known}, list[str](), list(reasons)
    for index, (name, own) in enumerate(zip(names, named, strict=True)):
        usual.append(usual_split(name, own, known))
        if own is None:
            why[index] = BY_HASH
        elif own != usual[-1]:
            why[index] = f"{why[index]}, and {BY_HASH}"
    if "train" not in usual:
        for index, own in enumerate(named):
            if own is None:
                usual[index], why[index] = "train", "there is nothing else to train on"
    return Splits(named, usual, why)


def usual_split(name: str, named: str | None, known: Collection[str | None]) -> str:
    """The split of an image: the named one, or by a hash; of training images where no validation is known, some."""
    if named is not None and (named != "train" or "validation" in known):
        return named
    by_name = split_by_name(name)
    return by_name if named is None or by_name == "validation" else named


def split_by_name(name: str) -> str:
    """The split of an image of which nothing is said but its name: by a hash of that."""
    rank = int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:4]) % 100
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
