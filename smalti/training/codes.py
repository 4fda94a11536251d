"""A data set as codes and their conditions: encoded once by the tokenizer and cached in the run's folder."""

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from smalti.configs import to_dict
from smalti.data.batches import Pixels
from smalti.data.conditions import captions_of, labels_of
from smalti.data.config import Data, DataConfig
from smalti.data.sources import open_data
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import read_tensors, write_tensors
from smalti.generate.tokenizer import PixelTokenizer, open_tokenizer
from smalti.images.pixels import model_images
from smalti.priors.config import PriorConfig
from smalti.priors.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class CodeSet:
    """The codes of a split's images, and what the prior is conditioned on."""

    codes: Tensor  # (N, h, w) integers; of binary pixels the grey levels 0 to 255, the probabilities of a Bernoulli
    binary: bool = False  # whether `codes` are grey levels
    classes: Tensor | None = None  # (N,) int64, of a class-conditional prior
    tokens: Tensor | None = None  # (N, M, length) int64, of a text-conditional prior: the captions of each image
    num_captions: Tensor | None = None  # (N,) how many of the M there are

    def __len__(self) -> int:
        return len(self.codes)

    def sample(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes (B, h, w) and condition of some images; binary pixels and one of their captions are sampled.

        The random numbers are those of torch's global generator.
        """
        codes = self.codes[indices]
        codes = torch.bernoulli(codes / 255).long() if self.binary else codes.long()
        if self.tokens is None or self.num_captions is None:
            return codes, None if self.classes is None else self.classes[indices]
        which = (torch.rand(len(indices)) * self.num_captions[indices]).long()
        return codes, self.tokens[indices, which]

    def fixed(self) -> tuple[Tensor, Tensor | None]:
        """All codes (N, h, w) and conditions, the same at every call: first captions, binary pixels by seed 0."""
        codes = self.codes.long()
        if self.binary:
            codes = torch.bernoulli(codes / 255, generator=torch.Generator().manual_seed(0)).long()
        return codes, self.classes if self.tokens is None else self.tokens[:, 0]


def load_codes(
    config: PriorConfig,
    data: Data,
    split: Split,
    cache: Path | None,
    text: TextTokenizer | None = None,
    progress: bool = False,
) -> CodeSet:
    """The codes of a split under the prior's tokenizer, with their conditions; read from the cache if it has them.

    The cache is a folder for codes-SPLIT.safetensors; None encodes the images again. `text` makes the captions' tokens;
    None leaves them out.

    Raises:
        SmaltiError: another tokenizer than the prior's, no such data, or images without the prior's kind of label.
    """
    key = json.dumps([config.tokenizer_hash, to_dict(DataConfig.of(data)), split])
    path = cache / f"codes-{split}.safetensors" if cache else None
    stored, metadata = read_tensors(path) if path and path.exists() else ({}, {})
    if metadata.get("key") == key:
        codes = stored["codes"]
    else:
        codes = _encode(config, data, split, progress)
        if path:
            write_tensors(path, {"codes": codes}, {"smalti": "codes", "key": key})
    found = CodeSet(codes=codes, binary=config.pixels is not None and config.pixels.levels == 2)
    if not config.labels and text is None:
        return found
    source = open_data(data, split)
    if len(source) != len(codes):
        raise SmaltiError(f"{data}: {len(source) - len(codes)} bad images; remove them to train with labels or text")
    if config.labels:
        return replace(found, classes=torch.tensor(config.classes(labels_of(data, split, config.label_kind))))
    assert text is not None and config.text is not None
    captions = captions_of(source, config.text.languages)
    width = max(len(row) for row in captions)
    flat = [row[index % len(row)] for row in captions for index in range(width)]
    long = sum(not text.fits(caption) for caption in {*flat})
    if long:
        warnings.warn(f"{long} captions are longer than {text.length} tokens and were cut", stacklevel=2)
    tokens = text(flat, cut=True).view(len(captions), width, -1)
    return replace(found, tokens=tokens, num_captions=torch.tensor([len(row) for row in captions]))


def _encode(config: PriorConfig, data: Data, split: Split, progress: bool) -> Tensor:
    """Codes as the smallest integers that hold them."""
    tokenizer = open_tokenizer(config)
    pixels = Pixels(open_data(data, split), tokenizer.preprocessing, progress=progress)
    if isinstance(tokenizer, PixelTokenizer) and tokenizer.codebook_size == 2:
        return torch.cat([batch.flatten(2) for batch in pixels.in_order(256)])
    small = torch.uint8 if tokenizer.codebook_size <= 256 else torch.int32
    generator = torch.Generator().manual_seed(0)
    images = (model_images(batch, tokenizer.preprocessing, generator) for batch in pixels.in_order(256))
    return torch.cat([tokenizer.encode(batch).cpu().to(small) for batch in images])
