"""Captions as tokens: a byte-level BPE of `tokenizers`, trained on the captions and stored with the model."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from smalti.configs import fit
from smalti.errors import SmaltiError, one_line, reason, shown
from smalti.files import atomic_path, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST_TEXT, LONGEST_TOKEN = 100_000, 1000  # characters
LEARNT = {"vocab": None, "merges": None}  # what differs from file to file
FILE = "text.json"  # in the prior's folder, in the format of `tokenizers`


class TextTokenizer:
    """Lower-cased captions to rows of at most `length` tokens and back; any text of any language can be written."""

    def __init__(self, bpe: "Tokenizer", length: int):
        self.bpe, self.length = bpe, length

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary: int, length: int) -> Self:
        """Learn at most `vocabulary` tokens from captions; the same captions give the same tokens."""
        from tokenizers import pre_tokenizers, trainers

        bpe, alphabet = _empty(), pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
        bpe.train_from_iterator(captions, trainer)
        return cls(bpe, length)

    @classmethod
    def load(cls, folder: Path, length: int, vocabulary: int) -> Self:
        """Read what `save` wrote: the tokens and their merges, nothing else; the machinery is always this module's own.

        The file may be anybody's, and the format of `tokenizers` holds whole programs: patterns, paddings, dropout.

        Raises:
            SmaltiError: no such file, a damaged one, or one that `train` does not write.
        """
        path = folder / FILE
        if not path.is_file():
            raise SmaltiError(f"{folder} has no {FILE}: the text tokens belong to the prior; copy it with the rest")
        with one_line(path, f"{path} is damaged"):
            values = read_json(path)
            tokens, merges = _tokens_and_merges(values, json.loads(_empty().to_str()), vocabulary)
            try:
                return cls(_empty(vocab=tokens, merges=merges), length)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # what Rust panics with is no Exception
                raise SmaltiError(f"damaged ({reason(error)})") from error

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
            tokens = self._encode(caption, cut=cut)
            if not tokens:
                raise SmaltiError('the text is empty; say what the image shall show, for example "red heart"')
            if len(tokens) > self.length and not cut:
                shown = caption if len(caption) <= 40 else caption[:37] + "..."
                raise SmaltiError(f"the text {shown!r} has {len(tokens)} tokens, at most {self.length} fit; shorten it")
            row[: len(tokens)] = torch.tensor(tokens[: self.length])
        return rows

    def _encode(self, caption: str, *, cut: bool = False) -> list[int]:
        if len(caption) > LONGEST_TEXT and not cut:
            raise SmaltiError(
                f"the text has {len(caption):,} characters, at most {LONGEST_TEXT:,} are read; shorten it"
            )
        caption = caption[:LONGEST_TEXT].strip()
        return self.bpe.encode(caption).ids if caption else []

    def fits(self, caption: str) -> bool:
        """Whether a caption has something to say and at most `length` tokens."""
        return len(caption) <= LONGEST_TEXT and 0 < len(self._encode(caption)) <= self.length

    def decode(self, tokens: Tensor) -> str:
        """The text of one row of tokens (length,)."""
        return self.bpe.decode(tokens[tokens >= 0].tolist()).strip()


def _empty(**options: Any) -> "Tokenizer":
    """A byte-level BPE of lower-cased text; `options` are its tokens and merges, where it has some."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    bpe = Tokenizer(models.BPE(**options))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _tokens_and_merges(values: Any, own: Any, vocabulary: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The tokens and merges of a file, if all else in it is as in a file of one's `own`.

    Raises:
        SmaltiError: it is not; the message names the key.
    """
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise SmaltiError("expected an object with a model")
    parts = [("", {**values, "model": None}, {**own, "model": None})]
    parts += [("model.", {**values["model"], **LEARNT}, {**own["model"], **LEARNT})]
    for where, found, wanted in parts:
        for key, value in found.items():
            if value != wanted.get(key) and not (key not in wanted and value in (None, False, [])):
                raise SmaltiError(f"{where}{key[:60]}: expected {shown(wanted.get(key))}, got {shown(value)}")
    from tokenizers import pre_tokenizers

    tokens = fit(dict[str, int], values["model"].get("vocab"), "model.vocab")
    if sorted(tokens.values()) != list(range(len(tokens))) or len(tokens) > vocabulary:
        raise SmaltiError(f"model.vocab: {len(tokens):,} tokens must be numbered from 0 and at most {vocabulary:,}")
    if missing := set(pre_tokenizers.ByteLevel.alphabet()) - tokens.keys():
        raise SmaltiError(f"model.vocab: {len(missing)} of the 256 bytes are missing")
    merges = values["model"].get("merges")
    if not isinstance(merges, list) or len(merges) > len(tokens):
        raise SmaltiError("model.merges: expected a list, not longer than the vocabulary")
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        one, other = fit(tuple[str, str], pair, "model.merges")
        if not {one, other, one + other} <= tokens.keys():
            raise SmaltiError(f"model.merges: {shown(merge)} are not two tokens that make a third")
        pairs.append((one, other))
    if len({*pairs}) < len(pairs) or max(map(len, tokens)) > LONGEST_TOKEN:
        raise SmaltiError(f"a merge stands twice, or a token has more than {LONGEST_TOKEN} characters")
    return tokens, pairs
