"""A prior as a model folder: with the names of its classes and the hash of the tokenizer whose codes it models."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from smalti.configs import build, nearest
from smalti.errors import SmaltiError
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

    def classes(self, names: Sequence[str]) -> Tensor:
        """The numbers of classes by their names, (B,) int64.

        Raises:
            SmaltiError: a name that the prior does not know.
        """
        kind, known = self.config.label_kind or "label", self.config.labels
        for name in names:
            if name not in known:
                raise SmaltiError(f"unknown {kind} {name!r}; {nearest(name, known)}")
        return torch.tensor([known.index(name) for name in names], dtype=torch.int64)

    def check_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise unless the codes come from the tokenizer that the prior was trained with.

        Raises:
            SmaltiError: another tokenizer; names both.
        """
        own = self.config.tokenizer_hash
        if tokenizer_hash != own:
            raise SmaltiError(
                f"this prior models the codes of the tokenizer {own[:12]} ({self.config.tokenizer}), "
                f"not of {tokenizer_hash[:12]}; give its own, or train a prior for this one"
            )
