"""The parts of a data set, by their names."""

from typing import Literal, get_args

Split = Literal["train", "validation", "test", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)
