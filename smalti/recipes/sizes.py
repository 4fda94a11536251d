"""Defaults of the autoencoders' recipes that follow the size of the images and the time there is.

A keyword that a preset has a value for is None unless it is given; `by_size` puts the preset's value in its place.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from smalti.configs import effective
from smalti.images.preprocessing import size_of

PresetName = Literal["small", "photo64", "photo128", "photo256"]
LONG_MINUTES = 20  # from here on a budget is long
LOOKUP = {"codebook_size": 16384, "code_dim": 8, "compare": "direction"}
RELAXED = {"codebook_size": 4096}  # of more the softmax costs as much as they gain
SCALAR = {"levels": (8, 8, 8, 6, 5)}  # 15,360 codes
PHOTO_CODES = {"vqvae": LOOKUP, "vqgan": LOOKUP, "dvae": RELAXED, "fsq": SCALAR}
PHOTO_CODES |= {"lfq": {"bits": 14}, "bsq": {"bits": 14}}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults for images of about one size.

    Attributes:
        up_to: pixels along a side, the root of H * W, of the largest images that it is chosen for.
        image_size: of the training, where the preset is named and no size is given.
        settings: values of keywords, for every recipe.
        codes: more of them, by the recipe.
        longer: others in their place, for a budget of at least `LONG_MINUTES`.
    """

    up_to: float
    image_size: int
    settings: Mapping[str, Any]
    codes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    longer: Mapping[str, Any] = field(default_factory=dict)


_ALL = {"pooling": "average", "activation": "gelu", "muon_rate": 5.0}
_PHOTO = {**_ALL, "width": 64, "depth": 1, "last_kernel": 3, "batch_size": 16, "steps": 4000, "augment": "flip"}
RESIDUAL = ("pooling", "activation")  # of no other networks
_LONGER = {"width": 128, "depth": 2, "augment": "crop"}  # so many epochs want more than flips
PRESETS: Mapping[PresetName, Preset] = {
    "small": Preset(up_to=48, image_size=32, settings=_ALL),
    "photo64": Preset(
        up_to=96, image_size=64, settings={**_PHOTO, "stride": 4, "patch": 2}, codes=PHOTO_CODES, longer=_LONGER
    ),
    "photo128": Preset(
        up_to=192, image_size=128, settings={**_PHOTO, "stride": 8, "patch": 4}, codes=PHOTO_CODES, longer=_LONGER
    ),
    "photo256": Preset(
        up_to=math.inf, image_size=256, settings={**_PHOTO, "stride": 16, "patch": 4}, codes=PHOTO_CODES, longer=_LONGER
    ),
}
FOLLOWING = {"image_size"}.union(
    *(preset.settings for preset in PRESETS.values()), *(codes for codes in PHOTO_CODES.values())
)


def by_size(recipe: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords' values of a preset: the one that is named, or the one for the size of the images.

    Args:
        recipe: its name.
        given: its keywords, None for those that follow; with "preset", "networks", "image_size", "steps" and
            "minutes".

    Raises:
        SmaltiError: an image size that is none, or both minutes and steps.
    """
    size, minutes = given["image_size"], given["minutes"]
    effective(minutes is None, f"with minutes {minutes}, which decide it", steps=(given["steps"], None))
    side = math.prod(size_of(size or PRESETS["small"].image_size)) ** 0.5
    name: PresetName = given["preset"]
    if given["preset"] == "auto":
        name = next(own for own, preset in PRESETS.items() if side <= preset.up_to)
    preset = PRESETS[name]
    values = {"image_size": preset.image_size, **preset.settings, **preset.codes.get(recipe, {})}
    if minutes is not None:
        values |= preset.longer if minutes >= LONG_MINUTES else {}
        values.pop("steps", None)  # the minutes decide
    if given["networks"] != "residual":
        values = {name: value for name, value in values.items() if name not in RESIDUAL}
    if given.get("stride") and "patch" in values:
        values["patch"] = min(values["patch"], given["stride"])
    return values
