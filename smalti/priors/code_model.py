"""A prior as a model folder: with the names of its classes and the hash of the tokenizer whose codes it models."""

from typing import ClassVar

from smalti.configs import build
from smalti.pretrained import Pretrained
from smalti.priors.config import PriorConfig
from smalti.priors.family import PRIORS, Prior


class CodeModel(Pretrained):
    """A trained prior.

    Args:
        config: the prior's spec, its codes, its classes.
    """

    config_class: ClassVar[type] = PriorConfig
    what: ClassVar[str] = "prior"

    def __init__(self, config: PriorConfig):
        super().__init__()
        self.config = config
        shape = {"codebook_size": config.codebook_size, "grid": config.grid}
        classes = {"num_conditions": len(config.labels)} if config.labels else {}
        self.prior: Prior = build(PRIORS, {**config.prior, **shape, **classes}, "prior")
