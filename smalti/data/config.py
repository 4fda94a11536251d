"""What `--data`, `--validation` and `--test` name; without numpy, so that recipes stay light."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, Self

from smalti.configs import FREE

Augment = Literal["none", "flip", "flip_shift", "crop"]
EMOJI = "emoji"  # the data set that comes with the package


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A data set, perhaps with its validation or test images elsewhere.

    Attributes:
        data: emoji, a folder of images or of idx files, or *.parquet.
        validation: the validation images, all of this data; by default some of --data.
        test: the test images, all of this data; by default some of --data.
    """

    data: str = field(metadata=FREE)  # what is in them decides, see `Source.fingerprint`; not where they are
    validation: str = field(default="", metadata=FREE)
    test: str = field(default="", metadata=FREE)

    def __post_init__(self) -> None:
        for own in fields(self):  # paths become text
            object.__setattr__(self, own.name, str(getattr(self, own.name)))

    @classmethod
    def of(cls, data: "Data") -> Self:
        """The data that one name, or a record, stands for."""
        return data if isinstance(data, cls) else cls(data=str(data))

    @property
    def elsewhere(self) -> Mapping[str, str]:
        """The splits that have data of their own, with its names."""
        return {split: getattr(self, split) for split in ("validation", "test") if getattr(self, split)}

    def __str__(self) -> str:
        """For people: "A (validation: B, test: C)"."""
        own = ", ".join(f"{split}: {name}" for split, name in self.elsewhere.items())
        return f"{self.data} ({own})" if own else self.data


Data = str | Path | DataConfig  # what may stand for a data set
