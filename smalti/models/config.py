"""The frozen description of an autoencoder; without torch, so that recipes and `--help` stay light."""

from dataclasses import dataclass, field
from typing import Literal

from smalti.configs import Spec


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What happens to a data set's images before the model sees them; stored with the model.

    Attributes:
        image_size: H and W in training and evaluation: the centre square, resized.
        channels: C, 3 for RGB or 1 for grey.
        binarize: "none"; "dynamic": every value is drawn anew as a Bernoulli each time it is seen (MNIST); or "fixed":
            drawn once.
    """

    image_size: int = 32
    channels: int = 3
    binarize: Literal["none", "dynamic", "fixed"] = "none"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """All that is needed to build an autoencoder; config.json in a model's folder.

    Attributes:
        networks: spec of a member of `NETWORKS`.
        bottleneck: spec of a member of `BOTTLENECKS`.
        likelihood: spec of a member of `LIKELIHOODS`, without its channels.
        preprocessing: of the images it was trained on.
    """

    networks: Spec
    bottleneck: Spec
    likelihood: Spec = field(default_factory=lambda: {"kind": "gaussian"})
    preprocessing: Preprocessing = Preprocessing()
