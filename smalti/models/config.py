"""The frozen description of an autoencoder; without torch, so that recipes and `--help` stay light."""

from dataclasses import dataclass, field

from smalti.configs import Spec
from smalti.images.preprocessing import Preprocessing


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
