"""What a server has to give: tokenizers, priors with theirs, and what it takes of strangers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from smalti.generate.generator import Generator
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
    turns: Turns = None  # type: ignore

    def __post_init__(self) -> None:
        self.turns = self.turns or Turns(self.limits.waiting, self.limits.wait_seconds)


def chosen(held: Mapping[str, T], name: str | None) -> T:
    """What is held under a name; without a name the first.

    Raises:
        Refused: 404.
    """
    found = next(iter(held.values()), None) if name is None else held.get(name)
    if found is None:
        raise Refused(404, f"there is no such model here; there are: {', '.join(held) or 'none'}")
    return found
