"""Text to image at a glance: captions of the training set, held-out captions, and mixtures that do not exist."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from smalti.data.sources import Source, open_data
from smalti.generate.generator import Generator
from smalti.images.contact_sheets import captioned

NUM_CAPTIONS, NUM_DRAWS = 9, 4  # captions of a split, evenly spread over it; draws of each caption
MIXTURES = (
    "red cat",
    "blue apple",
    "green heart with arrow",
    "rabbit with sunglasses",
    "orange whale",
    "moon with crown",
    "pizza with smiling face",
    "purple car",
    "flag with heart",
)


class Drawn(NamedTuple):
    """Images of some captions."""

    title: str
    captions: Sequence[str]
    images: Tensor  # (captions, draws, C, H, W)


def draw_captions(generator: Generator, data: str, *, guidance: float, seed: int = 0) -> list[Drawn]:
    """Draw captions of the data's training and test splits and mixtures.

    Args:
        generator: with text.
        data: with captions in the prior's first language.
        guidance: see `Generator.draw`.
        seed: of the random numbers.
    """
    groups = [
        ("captions of the training set", _some(open_data(data, "train"), generator)),
        ("held-out captions", _some(open_data(data, "test"), generator)),
        ("mixtures that do not exist", list(MIXTURES)),
    ]
    drawn = []
    for title, captions in groups:
        codes = generator.draw(captions, NUM_DRAWS, guidance=guidance, seed=seed)
        images = generator.tokenizer.decode(codes).cpu()
        drawn.append(Drawn(title, captions, images.unflatten(0, (len(captions), NUM_DRAWS))))
    return drawn


def _some(source: Source, generator: Generator) -> list[str]:
    """A few captions in the prior's first language, evenly spread over a split; none of which is too long."""
    config, text = generator.model.config, generator.model.text
    assert config.text is not None and text is not None
    rows = [source.captions[index].get(config.text.languages[0], "") for index in source.indices]
    rows = [caption for caption in rows if text.fits(caption)]
    count = min(NUM_CAPTIONS, len(rows))
    return [rows[(2 * place + 1) * len(rows) // (2 * count)] for place in range(count)]


def picture(drawn: Sequence[Drawn]) -> Image.Image:
    """All groups below each other, each caption under its draws."""
    return captioned([(group.title, list(zip(group.captions, group.images, strict=True))) for group in drawn])
