"""The frozen description of a trained prior; without torch, so that recipes and `--help` stay light."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

from smalti.bundled import bundled_with
from smalti.configs import FREE, Spec, nearest
from smalti.errors import SmaltiError, shown
from smalti.files import CONFIG, absolute_place, relative_place
from smalti.images.preprocessing import Preprocessing, size_text
from smalti.ranges import CodebookSize, Range, Share, Size


@dataclass(frozen=True, kw_only=True)
class PixelLevels:
    """Pixels as codes, for a prior without a trained tokenizer.

    Attributes:
        image_size: height and width, as 32 or 16x32.
        channels: C; the channels of a pixel stand side by side, so that the grid is (H, W * C).
        levels: K, of each value; 256 is exact. 2 is binary: a Bernoulli sample, another each time that an image is seen
            in training (dynamic binarisation), one with a fixed seed in evaluation.
        value_range: LOW:HIGH, the values that are black and white; by default those of a file's type.
    """

    image_size: int | str
    channels: Size
    levels: Annotated[int, Range(2, 256)]
    value_range: str | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise SmaltiError(f"levels must be from 2 to 256, not {self.levels}")
        object.__setattr__(self, "image_size", self.preprocessing.image_size)

    @property
    def preprocessing(self) -> Preprocessing:
        """Of the images."""
        return Preprocessing(image_size=self.image_size, channels=self.channels, value_range=self.value_range)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the codes."""
        height, width = self.preprocessing.size
        return height, width * self.channels

    @property
    def hash(self) -> str:
        """What stands for the tokenizer's hash."""
        scale = "" if self.value_range is None else f"-{self.value_range}"
        return f"pixels-{size_text(self.preprocessing.size)}x{self.channels}-{self.levels}{scale}"

    @property
    def codes(self) -> dict[str, Any]:
        """What a `PriorConfig` says of the codes and of what makes them."""
        made_by = {"tokenizer": "pixels", "tokenizer_hash": self.hash, "pixels": self}
        return {"codebook_size": self.levels, "grid": self.grid, **made_by}


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Captions as a condition.

    Attributes:
        languages: of the captions; in training, one of those that an image has, at random each time it is seen.
        vocabulary: most tokens of the byte-level BPE.
        length: tokens of a caption at most.
    """

    languages: tuple[str, ...]
    vocabulary: Annotated[int, Range(256, 1 << 16)]
    length: Size

    def __post_init__(self) -> None:
        if self.vocabulary < 256:
            raise SmaltiError(f"the text vocabulary must hold the 256 bytes at least, not {self.vocabulary}")
        if self.length < 1 or not self.languages:
            raise SmaltiError(f"text needs a length and a language, not {self.length} and {shown(self.languages)}")


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """All that is needed to build a prior and to find its tokenizer; config.json in a prior's folder.

    Attributes:
        prior: spec of a member of `PRIORS`, without codebook_size, grid and conditions.
        codebook_size: K, of the tokenizer.
        grid: (h, w) of the codes.
        tokenizer: the tokenizer's folder, owner/name on the hub, or "pixels". In config.json a folder is named from the
            prior's own, see `smalti.files.relative_place`; in memory by its whole path.
        tokenizer_hash: SHA-256 of its weights; codes of another tokenizer mean something else.
        pixels: how pixels become codes, where the tokenizer is "pixels".
        label_kind: what the prior is conditioned on ("group", "subgroup", "class"); empty is nothing.
        labels: the names of the classes.
        text: captions as the condition, instead of classes.
        condition_dropout: share of the training images that are shown without their condition; without any, the prior
            can neither do without a prompt nor be guided.
    """

    prior: Spec
    codebook_size: CodebookSize
    grid: tuple[Size, Size]
    tokenizer: str = field(metadata=FREE)
    tokenizer_hash: str
    pixels: PixelLevels | None = None
    label_kind: str = ""
    labels: tuple[str, ...] = ()
    text: TextConfig | None = None
    condition_dropout: Share = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.condition_dropout < 1:
            raise SmaltiError(f"condition_dropout must lie in [0, 1), not {self.condition_dropout}")
        if self.text and self.labels:
            raise SmaltiError("a prior takes classes or text, not both; leave labels or text out")

    def classes(self, names: Sequence[str]) -> list[int]:
        """The numbers of classes by their names.

        Raises:
            SmaltiError: a name that the prior does not know.
        """
        for name in names:
            if name not in self.labels:
                raise SmaltiError(f"unknown {self.label_kind or 'label'} {name!r}; {nearest(name, self.labels)}")
        return [self.labels.index(name) for name in names]

    def placed(self, folder: Path) -> Self:
        """The config as config.json in `folder` says it."""
        return self if self.pixels else replace(self, tokenizer=relative_place(self.tokenizer, folder))

    def opened(self, folder: Path) -> Self:
        """The config that config.json in `folder` says: the inverse of `placed`.

        A tokenizer that came with the package is found where the package is now.
        """
        if self.pixels:
            return self
        place = absolute_place(self.tokenizer, folder)
        moved = None if (Path(place) / CONFIG).exists() else bundled_with(self.tokenizer_hash)
        return replace(self, tokenizer=moved or place)

    def unlike(self, other: "PriorConfig") -> list[str]:
        """What this config's codes and conditions are that another's are not."""
        found = []
        if self.tokenizer_hash != other.tokenizer_hash:
            found.append(f"the codes of the tokenizer {self.tokenizer_hash[:12]}, not of {other.tokenizer_hash[:12]}")
        if self.labels != other.labels:
            found.append(f"the labels {', '.join(self.labels)[:80] or 'of nothing'}")
        if self.text != other.text:
            found.append("other text tokens")
        return found

    def check_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise a SmaltiError that names both, if this is not the tokenizer that the prior was trained with."""
        if tokenizer_hash != self.tokenizer_hash:
            raise SmaltiError(
                f"this prior models the codes of the tokenizer {self.tokenizer_hash[:12]} ({self.tokenizer}), "
                f"not of {tokenizer_hash[:12]}; give its own, or train a prior for this one"
            )
