"""The frozen description of a trained prior; without torch, so that recipes and `--help` stay light."""

from collections.abc import Sequence
from dataclasses import dataclass

from smalti.configs import Spec, nearest
from smalti.errors import SmaltiError


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """All that is needed to build a prior and to find its tokenizer; config.json in a prior's folder.

    Attributes:
        prior: spec of a member of `PRIORS`, without codebook_size, grid and num_conditions.
        codebook_size: K, of the tokenizer.
        grid: (h, w) of the codes.
        tokenizer: the tokenizer's folder, or owner/name on the hub.
        tokenizer_hash: SHA-256 of its weights; codes of another tokenizer mean something else.
        label_kind: what the prior is conditioned on ("group", "subgroup", "class"); empty is nothing.
        labels: the names of the classes.
    """

    prior: Spec
    codebook_size: int
    grid: tuple[int, int]
    tokenizer: str
    tokenizer_hash: str
    label_kind: str = ""
    labels: tuple[str, ...] = ()

    def classes(self, names: Sequence[str]) -> list[int]:
        """The numbers of classes by their names.

        Raises:
            SmaltiError: a name that the prior does not know.
        """
        for name in names:
            if name not in self.labels:
                raise SmaltiError(f"unknown {self.label_kind or 'label'} {name!r}; {nearest(name, self.labels)}")
        return [self.labels.index(name) for name in names]

    def check_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise unless the codes come from the tokenizer that the prior was trained with.

        Raises:
            SmaltiError: another tokenizer; names both.
        """
        if tokenizer_hash != self.tokenizer_hash:
            raise SmaltiError(
                f"this prior models the codes of the tokenizer {self.tokenizer_hash[:12]} ({self.tokenizer}), "
                f"not of {tokenizer_hash[:12]}; give its own, or train a prior for this one"
            )
