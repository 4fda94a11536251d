"""A prior as a model folder: with its classes or its text tokens, and the place and hash of its tokenizer."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from smalti.configs import effective
from smalti.errors import SmaltiError
from smalti.files import CONFIG, WEIGHTS, file_hash
from smalti.pretrained import Pretrained, find_folder
from smalti.priors.config import PriorConfig
from smalti.priors.family import PRIORS
from smalti.priors.text import FILE, TextTokenizer

TOKENIZER = "tokenizer"  # in a prior's folder: its tokenizer's, see `CodeModel.save_complete`


class CodeModel(Pretrained):
    """A trained prior.

    Args:
        config: the prior's spec, its codes, its condition.
        text: of a text-conditional prior, what makes its tokens.
    """

    config_class: ClassVar[type] = PriorConfig
    what: ClassVar[str] = "prior"
    more_files: ClassVar[tuple[str, ...]] = (FILE, f"{TOKENIZER}/{CONFIG}", f"{TOKENIZER}/{WEIGHTS}")

    def __init__(self, config: PriorConfig, text: TextTokenizer | None = None):
        super().__init__()
        self.config, self.text = config, text
        condition: dict[str, Any] = {"num_conditions": len(config.labels)} if config.labels else {}
        if config.text:
            condition = {"text_vocabulary": config.text.vocabulary, "text_length": config.text.length}
        self.prior = PRIORS.build(config.prior, codebook_size=config.codebook_size, grid=config.grid, **condition)

    def config_in(self, folder: Path) -> PriorConfig:
        """The config, with the tokenizer's place as seen from there."""
        return self.config.placed(folder)

    def save_more(self, folder: Path) -> None:
        """The text tokens."""
        if self.text:
            self.text.save(folder)

    def load_more(self, folder: Path) -> None:
        """The text tokens, and where the tokenizer is."""
        self.config = self.config.opened(folder)
        if self.config.text:
            self.text = TextTokenizer.load(folder, self.config.text.length, self.config.text.vocabulary)

    def save_complete(self, folder: Path, card: str | None = None) -> None:
        """With a copy of the tokenizer in the folder tokenizer, unless it is on the hub."""
        mine, here = self.config, Path(self.config.tokenizer)
        if mine.pixels is None and (here.is_absolute() or here.exists()):
            if not (here / WEIGHTS).is_file() or file_hash(here / WEIGHTS) != mine.tokenizer_hash:
                where = "say where it is by use_tokenizer"
                raise SmaltiError(f"the tokenizer {mine.tokenizer_hash[:12]} of this prior is not at {here}; {where}")
            (folder / TOKENIZER).mkdir(parents=True, exist_ok=True)
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(here / name, folder / TOKENIZER / name)
            self.config = replace(mine, tokenizer=str((folder / TOKENIZER).resolve()))
        try:
            self.save_pretrained(folder, card)
        finally:
            self.config = mine

    def use_tokenizer(self, where: str | None) -> Self:
        """Take the tokenizer from a folder, a bundled name or owner/name on the hub, not from where the config says.

        None leaves it there.

        Raises:
            SmaltiError: no such place, or a prior of pixels, which has no tokenizer.
        """
        effective(self.config.pixels is None, "on a prior of pixels", tokenizer=(where, None))
        if where is not None:
            self.config = replace(self.config, tokenizer=str(find_folder(where).resolve()))
        return self
