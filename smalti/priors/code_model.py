"""A prior as a model folder: with the names of its classes or its text tokens, and the hash of its tokenizer."""

from pathlib import Path
from typing import Any, ClassVar

from smalti.pretrained import Pretrained
from smalti.priors.config import PriorConfig
from smalti.priors.family import PRIORS
from smalti.priors.text import FILE, TextTokenizer


class CodeModel(Pretrained):
    """A trained prior.

    Args:
        config: the prior's spec, its codes, its condition.
        text: of a text-conditional prior, what makes its tokens.
    """

    config_class: ClassVar[type] = PriorConfig
    what: ClassVar[str] = "prior"
    more_files: ClassVar[tuple[str, ...]] = (FILE,)

    def __init__(self, config: PriorConfig, text: TextTokenizer | None = None):
        super().__init__()
        self.config, self.text = config, text
        condition: dict[str, Any] = {"num_conditions": len(config.labels)} if config.labels else {}
        if config.text:
            condition = {"text_vocabulary": config.text.vocabulary, "text_length": config.text.length}
        self.prior = PRIORS.build(config.prior, codebook_size=config.codebook_size, grid=config.grid, **condition)

    def save_more(self, folder: Path) -> None:
        """The text tokens."""
        if self.text:
            self.text.save(folder)

    def load_more(self, folder: Path) -> None:
        """The text tokens."""
        if self.config.text:
            self.text = TextTokenizer.load(folder, self.config.text.length, self.config.text.vocabulary)
