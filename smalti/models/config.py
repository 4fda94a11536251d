"""The frozen description of an autoencoder; without torch, so that recipes and `--help` stay light."""

from dataclasses import dataclass, field

from smalti.configs import Spec
from smalti.images.preprocessing import Corruption, Preprocessing


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """All that is needed to build an autoencoder; config.json in a model's folder."""

    networks: Spec  # of a member of `NETWORKS`
    bottleneck: Spec  # of a member of `BOTTLENECKS`
    likelihood: Spec = field(default_factory=lambda: {"kind": "gaussian"})  # of `LIKELIHOODS`, without its channels
    preprocessing: Preprocessing = Preprocessing()  # of the images it was trained on
    corruption: Corruption = Corruption()  # what it was trained to restore images from
