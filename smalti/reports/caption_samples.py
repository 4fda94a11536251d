"""Text-to-image samples: captions of the training set, held-out captions, and compositions that do not exist."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from smalti.data.config import Data
from smalti.data.source import Source
from smalti.data.sources import open_data
from smalti.generate.generator import Generator
from smalti.images.contact_sheets import captioned

NUM_CAPTIONS, NUM_SAMPLES = 9, 4  # captions of a split, evenly spaced; samples of each
COMPOSITIONS = ("red cat", "blue apple", "green heart with arrow", "rabbit with sunglasses", "orange whale",
                "moon with crown", "pizza with smiling face", "purple car", "flag with heart")  # fmt: skip


class CaptionSamples(NamedTuple):
    """Samples of a group of captions."""

    title: str
    captions: Sequence[str]
    images: Tensor  # (captions, samples, C, H, W)


def sample_captions(generator: Generator, data: Data, *, guidance: float, seed: int = 0) -> list[CaptionSamples]:
    """Sample captions of the training split, of the test split, and compositions.

    Args:
        generator: of a prior with text.
        data: with captions in the prior's first language.
        guidance: see `Generator.sample`.
        seed: of the random numbers.
    """
    groups = [
        ("captions of the training set", _some(open_data(data, "train"), generator)),
        ("held-out captions", _some(open_data(data, "test"), generator)),
        ("compositions that do not exist", list(COMPOSITIONS)),
    ]
    samples = []
    for title, captions in groups:
        codes = generator.sample(captions, NUM_SAMPLES, guidance=guidance, seed=seed)
        images = generator.tokenizer.decode(codes).cpu()
        samples.append(CaptionSamples(title, captions, images.unflatten(0, (len(captions), NUM_SAMPLES))))
    return samples


def _some(source: Source, generator: Generator) -> list[str]:
    """A few captions in the prior's first language, evenly spaced in a split; none is too long."""
    config, text = generator.model.config, generator.model.text
    assert config.text is not None and text is not None
    rows = [source.captions[index].get(config.text.languages[0], "") for index in source.indices]
    rows = [caption for caption in rows if text.fits(caption)]
    count = min(NUM_CAPTIONS, len(rows))
    return [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]


def picture(samples: Sequence[CaptionSamples]) -> Image.Image:
    """All groups as one contact sheet, each caption under its samples."""
    return captioned([(group.title, list(zip(group.captions, group.images, strict=True))) for group in samples])
