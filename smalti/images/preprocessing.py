"""What becomes of a data set's images before a model sees them; without torch, so that recipes stay light."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What becomes of a data set's images before the model sees them; stored with the model.

    Attributes:
        image_size: H and W in training and evaluation: the centre square, resized.
        channels: C, 3 for RGB or 1 for grey.
        binarize: "none"; "dynamic": every value is sampled as a Bernoulli each time it is seen (MNIST); or "fixed":
            sampled once.
    """

    image_size: int = 32
    channels: int = 3
    binarize: Literal["none", "dynamic", "fixed"] = "none"

    @property
    def num_dims(self) -> int:
        """C * H * W."""
        return self.channels * self.image_size**2
