"""What becomes of a data set's images before a model sees them; without torch, so that recipes stay light."""

from dataclasses import dataclass
from typing import Literal

from smalti.configs import effective, nearest
from smalti.errors import SmaltiError
from smalti.ranges import Size

Noise = Literal["none", "gaussian", "salt_and_pepper", "masking"]
LEVELS: dict[Noise, float] = {"gaussian": 0.1, "salt_and_pepper": 0.1, "masking": 0.25}  # unless one is given
CURVES: dict[Noise, tuple[float, ...]] = {  # the levels of an evaluation
    "gaussian": (0.0, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5),
    "salt_and_pepper": (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5),
    "masking": (0.0, 0.1, 0.25, 0.5, 0.75),
}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What becomes of a data set's images before the model sees them; stored with the model.

    Attributes:
        image_size: H and W in training and evaluation: the centre square, resized.
        channels: C, 3 for RGB or 1 for grey.
        binarize: "none"; "dynamic": every value is sampled as a Bernoulli each time it is seen (MNIST); or "fixed":
            sampled once.
    """

    image_size: Size = 32
    channels: Size = 3
    binarize: Literal["none", "dynamic", "fixed"] = "none"

    @property
    def num_dims(self) -> int:
        """C * H * W."""
        return self.channels * self.image_size**2


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
