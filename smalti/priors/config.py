"""The frozen description of a trained prior; without torch, so that recipes and `--help` stay light."""

from dataclasses import dataclass

from smalti.configs import Spec


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
