"""Captions as tokens: a byte-level BPE of `tokenizers`, trained on the captions and stored with the model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.files import atomic_path

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "text.json"  # in the prior's folder, in the format of `tokenizers`


class TextTokenizer:
    """Lower-cased captions to rows of at most `length` tokens and back; any text of any language can be written."""

    def __init__(self, bpe: "Tokenizer", length: int):
        self.bpe, self.length = bpe, length

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int, length: int) -> Self:
        """Learn at most `vocabulary` tokens from captions; the same captions give the same tokens."""
        kit = _library()
        bpe = kit.Tokenizer(kit.models.BPE())
        bpe.normalizer = kit.normalizers.Sequence([kit.normalizers.NFC(), kit.normalizers.Lowercase()])
        bpe.pre_tokenizer = kit.pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = kit.decoders.ByteLevel()
        alphabet = kit.pre_tokenizers.ByteLevel.alphabet()
        trainer = kit.trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
        bpe.train_from_iterator(captions, trainer)
        return cls(bpe, length)

    @classmethod
    def load(cls, folder: Path, length: int) -> Self:
        """Read what `save` wrote.

        Raises:
            SmaltiError: no such file, or a damaged one.
        """
        path = folder / FILE
        if not path.is_file():
            raise SmaltiError(f"{folder} has no {FILE}: the text tokens belong to the prior; copy it with the rest")
        try:
            return cls(_library().Tokenizer.from_file(str(path)), length)
        except Exception as error:  # the library raises bare Exception
            raise SmaltiError(f"{path}: cut off or damaged ({str(error).splitlines()[0]})") from error

    def save(self, folder: Path) -> None:
        """Write text.json."""
        with atomic_path(folder / FILE) as temporary:
            temporary.write_text(self.bpe.to_str(), encoding="utf-8")

    def __call__(self, captions: Sequence[str], *, cut: bool = False) -> Tensor:
        """Tokens (B, length) int64, filled up with -1.

        Args:
            captions: one or more.
            cut: cut what is too long instead of refusing it.

        Raises:
            SmaltiError: an empty caption, or one of too many tokens.
        """
        rows = torch.full((len(captions), self.length), -1)
        for row, caption in zip(rows, captions, strict=True):
            tokens = self.bpe.encode(caption.strip()).ids
            if not tokens or not caption.strip():
                raise SmaltiError('the text is empty; say what the image shall show, for example "red heart"')
            if len(tokens) > self.length and not cut:
                shown = caption if len(caption) <= 40 else caption[:37] + "..."
                raise SmaltiError(f"the text {shown!r} has {len(tokens)} tokens, at most {self.length} fit; shorten it")
            row[: len(tokens)] = torch.tensor(tokens[: self.length])
        return rows

    def fits(self, caption: str) -> bool:
        """Whether a caption has something to say and at most `length` tokens."""
        return bool(caption.strip()) and len(self.bpe.encode(caption.strip()).ids) <= self.length

    def decode(self, tokens: Tensor) -> str:
        """The text of one row of tokens (length,)."""
        return self.bpe.decode(tokens[tokens >= 0].tolist()).strip()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise SmaltiError("text needs the extra 'text': pip install 'smalti[text]'") from error
    return tokenizers
