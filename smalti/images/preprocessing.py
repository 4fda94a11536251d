"""What becomes of a data set's images before a model sees them; without torch, so that recipes stay light."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from smalti.configs import effective, nearest
from smalti.errors import SmaltiError
from smalti.images.remarks import Remarks
from smalti.ranges import Size as Pixels

Noise = Literal["none", "gaussian", "salt_and_pepper", "masking"]
LEVELS: dict[Noise, float] = {"gaussian": 0.1, "salt_and_pepper": 0.1, "masking": 0.25}  # unless one is given
CURVES: dict[Noise, tuple[float, ...]] = {  # the levels of an evaluation
    "gaussian": (0.0, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5),
    "salt_and_pepper": (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    "masking": (0.0, 0.1, 0.25, 0.5, 0.75),
}


Size = int | tuple[int, int]  # in pixels: the side of a square, or (H, W)
ORIGINAL = "original"  # where an evaluation takes a size: every image at its own
Range = tuple[float, float]  # the values of black and of white


def sides(size: Size) -> tuple[int, int]:
    """(H, W) of a size."""
    return (size, size) if isinstance(size, int) else size


def size_of(text: int | str, what: str = "image_size") -> tuple[int, int]:
    """(H, W) of a side in pixels, as 32, or of height and width, as "16x32".

    Raises:
        SmaltiError: another text, or a side below 1; `what` begins the message.
    """
    words = str(text).lower().split("x")
    known = all(word.isascii() and word.isdecimal() and 0 < int(word) < 1 << 31 for word in words)
    if isinstance(text, bool) or not known or len(words) > 2:
        raise SmaltiError(f"{what} must be a side in pixels or HEIGHTxWIDTH, as 32 or 16x32, not {str(text)[:60]!r}")
    return int(words[0]), int(words[-1])


def size_text(size: tuple[int, int]) -> str:
    """(H, W) as it is written: "16x32"."""
    return f"{size[0]}x{size[1]}"


def size_in_words(image_size: int | str) -> str:
    """What an evaluation says of the size of its images: "16x32", or that every image has its own."""
    return "every image at its own size" if image_size == ORIGINAL else size_text(size_of(image_size))


def range_of(text: str) -> Range:
    """(low, high) of a range of values, as "0:4095".

    Raises:
        SmaltiError: another text, or a low that is not below the high.
    """
    low, _, high = str(text).partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not (math.isfinite(found[1] - found[0]) and found[0] < found[1]):
        raise SmaltiError(f"value_range must be LOW:HIGH, as 0:4095 or -1000:1000, not {str(text)[:60]!r}")
    return found


@dataclass(frozen=True)
class Reading:
    """What becomes of the pixels of a file.

    Attributes:
        channels: C, 3 for RGB, 1 for grey, or the number of bands.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as its sides keep this
            many pixels; much faster when the image is resized anyway. None decodes it at full size.
        value_range: the values that become black and white; by default those of the file's type.
        remarks: where remarks on an image are collected; None warns of each at once.
    """

    channels: int = 3
    at_least: Size | None = None
    value_range: Range | None = None
    remarks: Remarks | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What becomes of a data set's images before the model sees them; stored with the model.

    Attributes:
        image_size: height and width in training and evaluation, as 32 or 16x32: the largest centre of that form,
            resized.
        channels: C: 3 for RGB, 1 for grey, or the number of bands of other images.
        value_range: LOW:HIGH, the values that are black and white, as 0:4095 for 12 bits; by default those of a file's
            type: 0:255 and 0:65535 for integers of 8 and 16 bits, 0:1 for floats.
        binarize: "none"; "dynamic": every value is sampled as a Bernoulli each time it is seen (MNIST); or "fixed":
            sampled once.
    """

    image_size: int | str = 32
    channels: Pixels = 3
    binarize: Literal["none", "dynamic", "fixed"] = "none"
    value_range: str | None = None

    def __post_init__(self) -> None:
        height, width = size_of(self.image_size)
        object.__setattr__(self, "image_size", height if height == width else size_text((height, width)))
        if isinstance(self.channels, bool) or not isinstance(self.channels, int) or self.channels < 1:
            raise SmaltiError(f"channels must be at least 1, not {self.channels!r}")
        if self.value_range is not None:
            range_of(self.value_range)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return size_of(self.image_size)

    @property
    def num_dims(self) -> int:
        """C * H * W."""
        return self.channels * math.prod(self.size)

    @property
    def resize(self) -> str:
        """What becomes of the images' size, in words."""
        return f"centre {'square' if isinstance(self.image_size, int) else 'of that form'}, antialiased bicubic"

    @property
    def in_words(self) -> dict[str, Any]:
        """Its values by name, for an evaluation; without the value range where there is none."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def kind(self) -> str:
        """What the images are, in words: grey, colour, or 4-channel; "grey 0:4095" where values have a stated range."""
        kind = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        return kind if self.value_range is None else f"{kind} {self.value_range}"

    @property
    def reading(self) -> Reading:
        """How files are read, at their full size."""
        return Reading(self.channels, value_range=None if self.value_range is None else range_of(self.value_range))


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """The noise on what an encoder sees of images that the whole model restores, see `smalti.images.noise`.

    What a noise that is not there would need is None.

    Attributes:
        noise: on what the encoder sees, so that the model learns to restore the clean image: gaussian; salt_and_pepper
            (pixels become white or black); or masking (pixels or patches become grey).
        noise_level: standard deviation of gaussian noise on values in [0, 1], 0.1 by default; the share of pixels that
            salt_and_pepper or masking replaces, 0.1 and 0.25 by default.
        noise_lowest: every image has a level of its own, uniform between this and noise_level; by default all have
            noise_level.
        noise_patch: of masking, the side of the masked squares, in pixels; 1 by default.
    """

    noise: Noise = "none"
    noise_level: float | None = None
    noise_lowest: float | None = None
    noise_patch: int | None = None

    def __post_init__(self) -> None:
        if self.noise not in (known := ("none", *LEVELS)):
            raise SmaltiError(f"noise {self.noise!r} is unknown; {nearest(self.noise, known)}")
        level = (self.noise_level, LEVELS.get(self.noise, 0.0))
        options = effective(self.noise != "none", "without noise", noise_level=level)
        lowest = (self.noise_lowest, options.get("noise_level"))
        options |= effective(self.noise != "none", "without noise", noise_lowest=lowest)
        options |= effective(self.noise == "masking", "without noise masking", noise_patch=(self.noise_patch, 1))
        for name, value in options.items():
            object.__setattr__(self, name, value)
        if self.noise_level is None or self.noise_lowest is None:
            return
        if not 0 < self.noise_level <= 1:
            raise SmaltiError(f"noise_level must lie above 0 and be at most 1, not {self.noise_level}")
        if not 0 <= self.noise_lowest <= self.noise_level:
            raise SmaltiError(f"noise_lowest must lie in 0 to noise_level, {self.noise_level}: {self.noise_lowest}")
        if self.noise_patch is not None and self.noise_patch < 1:
            raise SmaltiError(f"noise_patch is a side in pixels, at least 1, not {self.noise_patch}")

    def at(self, level: float) -> "Corruption":
        """The same kind of noise at one level; at 0 there is none."""
        return Corruption(noise=self.noise, noise_level=level, noise_patch=self.noise_patch) if level else Corruption()

    def __str__(self) -> str:
        if self.noise == "none":
            return "no noise"
        one = self.noise_lowest == self.noise_level
        levels = f"level {self.noise_level}" if one else f"levels {self.noise_lowest} to {self.noise_level}"
        patches = f", squares of {self.noise_patch} pixels" if self.noise_patch not in (None, 1) else ""
        return f"{self.noise.replace('_', ' ')} noise, {levels}{patches}"


def asked_noise(
    trained: Corruption, noise: Noise, noise_level: float | None = None, noise_patch: int | None = None
) -> Corruption:
    """The noise that a user asks for; what is left out is as a model was `trained`, if on this kind, or the default."""
    if trained.noise == noise:
        noise_level = trained.noise_level if noise_level is None else noise_level
        noise_patch = trained.noise_patch if noise_patch is None else noise_patch
    return Corruption(noise=noise, noise_level=noise_level, noise_patch=noise_patch)
