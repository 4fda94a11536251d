"""What a server has to give: tokenizers, priors with theirs, and what it takes of strangers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from smalti.generate.generator import Generator
from smalti.interop.onnx import described
from smalti.models.autoencoder import Autoencoder
from smalti.server.limits import Limits, Refused
from smalti.server.turns import Turns

T = TypeVar("T")


@dataclass
class Served:
    """Models by the names under which they are asked for, and their turns.

    Attributes:
        tokenizers: models with codes.
        priors: with their tokenizers.
        limits: of what is taken.
        turns: of the models.
    """

    tokenizers: Mapping[str, Autoencoder]
    priors: Mapping[str, Generator] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    turns: Turns = None  # pyright: ignore[reportAssignmentType]  # its own, by default

    def __post_init__(self) -> None:
        self.turns = self.turns or Turns(self.limits.waiting, self.limits.wait_seconds)

    def listed(self) -> list[dict[str, Any]]:
        """What each model is, for JSON."""
        tokenizers = [_tokenizer(name, model) for name, model in self.tokenizers.items()]
        return tokenizers + [_prior(name, own) for name, own in self.priors.items()]


def _tokenizer(name: str, model: Autoencoder) -> dict[str, Any]:
    return {"kind": "tokenizer", "name": name, **described(model)}


def _prior(name: str, own: Generator) -> dict[str, Any]:
    """A prior; its grid is that of the positions, whatever number of codes each has."""
    config, prior = own.model.config, own.model.prior
    return {
        "kind": "prior",
        "name": name,
        "model_hash": own.model.source_hash,
        "tokenizer_hash": config.tokenizer_hash,
        "grid": [config.grid[0], config.grid[1] // own.tokenizer.beside],
        "text": config.text is not None,
        "labels": list(config.labels),
        "guidance": bool(prior.conditions.count and config.condition_dropout),
        "completes": True,
        "surprise": prior.causal,
    }


def chosen(held: Mapping[str, T], name: str | None) -> T:
    """What is held under a name; without a name the first.

    Raises:
        Refused: 404.
    """
    found = next(iter(held.values()), None) if name is None else held.get(name)
    if found is None:
        raise Refused(404, f"there is no such model here; there are: {', '.join(held) or 'none'}")
    return found
