"""A data set as codes and their conditions: encoded once by the tokenizer and cached in the run's folder."""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smalti.data.batches import CHANCES, Pixels
from smalti.data.conditions import captions_of, labels_of
from smalti.data.crops import open_pixels
from smalti.data.source import Source
from smalti.errors import SmaltiError
from smalti.files import read_checked, write_checked
from smalti.generate.tokenizer import PixelTokenizer, Tokenizer, open_tokenizer
from smalti.images.pixels import model_images
from smalti.ops import randomness
from smalti.priors.config import PriorConfig
from smalti.priors.text import TextTokenizer
from smalti.training.experiment import ViewsConfig

AT_ONCE = 256  # images


@dataclass(frozen=True, kw_only=True)
class CodeSet:
    """The codes of a split's images, and what the prior is conditioned on."""

    codes: Tensor  # (N, h, w) integers; of binary pixels the grey levels 0 to 255, the probabilities of a Bernoulli
    binary: bool = False  # whether `codes` are grey levels
    views: Tensor | None = None  # (N, V, h, w), codes of other views of each image, to learn from
    fingerprint: str = ""  # of the images that can be read, in order, and of their conditions
    classes: Tensor | None = None  # (N,) int64, of a class-conditional prior
    tokens: Tensor | None = None  # (N, M, length) int64, of a text-conditional prior: the captions of each image
    num_captions: Tensor | None = None  # (N,) how many of the M there are

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def about(self) -> dict[str, Any]:
        """For a checkpoint: "num_images" and "fingerprint"."""
        return {"num_images": len(self), "fingerprint": self.fingerprint}

    def sample(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes (B, h, w) and condition of some images; of views, of captions and of binary pixels one is sampled.

        The random numbers are those of `smalti.ops.randomness`.
        """
        codes = self.codes[indices]
        if self.views is not None:
            which = (randomness.uniform(len(indices)) * (1 + self.views.shape[1])).long()
            other = self.views[indices, (which - 1).clamp(min=0)]
            codes = torch.where((which == 0)[:, None, None], codes, other)
        codes = (randomness.uniform(*codes.shape) < codes / 255).long() if self.binary else codes.long()
        if self.tokens is None or self.num_captions is None:
            return codes, None if self.classes is None else self.classes[indices]
        which = (randomness.uniform(len(indices)) * self.num_captions[indices]).long()
        return codes, self.tokens[indices, which]

    def fixed(self) -> tuple[Tensor, Tensor | None]:
        """All codes (N, h, w) and conditions, the same at every call: first captions, binary pixels by seed 0."""
        codes = self.codes.long()
        if self.binary:
            codes = torch.bernoulli(codes / 255, generator=torch.Generator().manual_seed(0)).long()
        return codes, self.classes if self.tokens is None else self.tokens[:, 0]


def load_codes(
    config: PriorConfig,
    source: Source,
    cache: Path | None,
    text: TextTokenizer | None = None,
    views: ViewsConfig | None = None,
    progress: bool = False,
) -> CodeSet:
    """The codes of a split under the prior's tokenizer, with their conditions; read from the cache if it has them.

    The cache is a folder for codes-SPLIT.safetensors and views-SPLIT.safetensors, which belong to what is in the
    images, wherever they are; None encodes the images again. `text` makes the captions' tokens; None leaves them out.
    `views` are further codes of each image; None and views "none" are none.
    Images that cannot be read are left out, with their conditions.

    Raises:
        SmaltiError: another tokenizer than the prior's, or images without the prior's kind of label.
    """
    key = {"tokenizer": config.tokenizer_hash, "fingerprint": source.fingerprint}

    def stored_as(name: str, key: dict[str, str], encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = cache / f"{name}-{source.split}.safetensors" if cache else None
        found = _cached(path, key) if path else None
        if found is None:
            found = encode()
            if path:
                write_checked(path, found, key)
        return found

    stored = stored_as("codes", key, lambda: _encode(config, source, progress))
    codes, binary = stored["codes"], config.pixels is not None and config.pixels.levels == 2
    places: list[int] = stored["places"].tolist()
    if len(places) < len(source):
        source = replace(source, indices=[source.indices[place] for place in places])
    found = CodeSet(codes=codes, binary=binary, fingerprint=source.fingerprint)
    if views is not None and views.views != "none":
        readable, key = source, key | {"views": json.dumps(vars(views))}
        stored = stored_as("views", key, lambda: _encode_views(config, readable, views, progress))
        found = replace(found, views=stored["views"])
    if config.labels:
        names = labels_of(source, config.label_kind)
        return replace(found, classes=torch.tensor(config.classes(names)), fingerprint=_with(found, names))
    if text is None:
        return found
    assert config.text is not None
    captions = captions_of(source, config.text.languages)
    width = max(len(row) for row in captions)
    flat = [row[index % len(row)] for row in captions for index in range(width)]
    long = sum(not text.fits(caption) for caption in {*flat})
    if long:
        warnings.warn(f"{long} captions are longer than {text.length} tokens and were cut", stacklevel=2)
    counts, tokens = torch.tensor([len(row) for row in captions]), text(flat, cut=True).view(len(captions), width, -1)
    return replace(found, tokens=tokens, num_captions=counts, fingerprint=_with(found, captions))


def _with(found: CodeSet, conditions: Any) -> str:
    """The fingerprint of images and of what a prior is told of them."""
    return hashlib.sha256(json.dumps([found.fingerprint, conditions]).encode()).hexdigest()


def _cached(path: Path, key: dict[str, str]) -> dict[str, Tensor] | None:
    """What a cache holds; None where there is none, a damaged one, or one of other images or another tokenizer."""
    try:
        stored, found = read_checked(path)
    except SmaltiError:
        return None
    return stored if found == key else None


def _encode(config: PriorConfig, source: Source, progress: bool) -> dict[str, Tensor]:
    """Images that can be read: "codes", as the smallest integers that hold them, and their "places" in the source."""
    tokenizer, generator = open_tokenizer(config), torch.Generator().manual_seed(0)
    pixels = Pixels(source, tokenizer.preprocessing, memory_bytes=0)
    places, codes = [], []
    for some, batch in pixels.readable_batches(AT_ONCE, "encoding images", progress):
        places += some
        codes.append(_codes_of(batch, tokenizer, generator))
    if not codes:
        raise SmaltiError(f"{source.name}: none of its {len(source)} images can be read; the first: {pixels.bad[0]}")
    if pixels.bad:
        warnings.warn(f"skipped {len(pixels.bad)} bad images; the first: {pixels.bad[0]}", stacklevel=3)
    return {"codes": torch.cat(codes), "places": torch.tensor(places)}


def _encode_views(config: PriorConfig, source: Source, views: ViewsConfig, progress: bool) -> dict[str, Tensor]:
    """The codes of other views of images that can all be read: "views" (N, V, h, w), always the same."""
    tokenizer, generator = open_tokenizer(config), torch.Generator().manual_seed(0)
    pixels = open_pixels(source, tokenizer.preprocessing, views.view_area)
    rng, codes = np.random.default_rng(0), []
    starts = range(0, len(source), AT_ONCE)
    for start in tqdm(starts, "encoding views", disable=not progress, file=sys.stderr, leave=False):
        some = range(start, min(start + AT_ONCE, len(source)))
        if views.views == "flip":
            seen = [np.ascontiguousarray(pixels.gather(some)[:, :, ::-1])]
        else:
            seen = [pixels.views(some, "crop", rng.random((len(some), CHANCES))) for _ in range(views.num_views or 0)]
        codes.append(torch.stack([_codes_of(torch.from_numpy(one), tokenizer, generator) for one in seen], dim=1))
    return {"views": torch.cat(codes)}


def _codes_of(batch: Tensor, tokenizer: Tokenizer, generator: torch.Generator) -> Tensor:
    """The codes (B, h, w) of uint8 (B, H, W, C), as the smallest integers that hold them; of binary pixels levels."""
    if isinstance(tokenizer, PixelTokenizer) and tokenizer.codebook_size == 2:
        return batch.flatten(2)
    small = torch.uint8 if tokenizer.codebook_size <= 256 else torch.int32
    return tokenizer.encode(model_images(batch, tokenizer.preprocessing, generator)).cpu().to(small)
