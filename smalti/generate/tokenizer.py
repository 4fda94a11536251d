"""The tokenizer whose codes a prior models: a trained autoencoder, or the pixels themselves."""

from pathlib import Path

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.images.pixels import to_uint8
from smalti.images.reading import Images, to_images
from smalti.models.autoencoder import Autoencoder
from smalti.modes import evaluating
from smalti.priors.config import PixelLevels, PriorConfig
from smalti.shapes import check_shape


class PixelTokenizer:
    """Pixels as codes: the values, rounded down to levels; C of a pixel stand side by side.

    Shapes:
        images  (B, C, H, W)    float in [0, 1]
        codes   (B, H, W * C)   int64 in [0, levels)
    """

    def __init__(self, pixels: PixelLevels):
        self.pixels = pixels
        self.preprocessing = pixels.preprocessing
        self.source_hash = pixels.hash
        self.codebook_size, self.beside = pixels.levels, pixels.channels

    @property
    def vectors(self) -> Tensor | None:
        """What tells codes that look alike, (K, D): the levels."""
        return torch.linspace(0, 1, self.codebook_size)[:, None]

    def encode(self, images: Images) -> Tensor:
        """The codes of images; binary ones are thresholded at one half."""
        stacked, (height, width) = torch.stack(to_images(images, self.preprocessing.reading)), self.preprocessing.size
        check_shape(stacked, "B C H W", "images", H=height, W=width)
        return (to_uint8(stacked).long() * self.pixels.levels // 256).flatten(2)  # of (B, H, W, C)

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes."""
        (height, width), channels = self.preprocessing.size, self.pixels.channels
        check_shape(codes, "B h w", "codes", h=height, w=width * channels)
        values = codes.float() / (self.pixels.levels - 1)
        return values.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def laid(self, codes: Tensor) -> Tensor:
        """Codes as they are: there is one form of them."""
        return codes

    def stacked(self, codes: Tensor) -> Tensor:
        """Codes as they are: there is one form of them."""
        return codes


class TrainedTokenizer:
    """A trained autoencoder; the codes of a multi-codebook quantizer are laid side by side in the grid.

    Shapes:
        images  (B, C, H, W)    float in [0, 1]
        codes   (B, h, w * q)   int64 in [0, K)
    """

    def __init__(self, model: Autoencoder):
        self.model, self.preprocessing = model, model.config.preprocessing
        self.source_hash = model.source_hash
        self.codebook_size, self.beside = model.codes_bottleneck.codebook_size, model.codes_bottleneck.num_codebooks

    @property
    def vectors(self) -> Tensor | None:
        """What tells codes that look alike, (K, D): the code vectors; None where a code has one of each codebook."""
        bottleneck = self.model.codes_bottleneck
        return evaluating(bottleneck).decode_each()[0] if self.beside == 1 else None

    def encode(self, images: Images) -> Tensor:
        """The codes of images."""
        return self.laid(self.model.encode(images))

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes."""
        return self.model.decode(self.stacked(codes))

    def laid(self, codes: Tensor) -> Tensor:
        """The model's codes, (B, h, w) or (B, q, h, w), in a prior's grid."""
        return codes if codes.ndim == 3 else codes.permute(0, 2, 3, 1).flatten(2)

    def stacked(self, codes: Tensor) -> Tensor:
        """Codes of a prior's grid as the model has them: the inverse of `laid`. Any numbers, one for each code."""
        count = self.beside
        return codes if count == 1 else codes.unflatten(2, (-1, count)).permute(0, 3, 1, 2)


Tokenizer = PixelTokenizer | TrainedTokenizer


def open_tokenizer(config: PriorConfig, device: str = "cpu") -> Tokenizer:
    """The tokenizer of a prior, checked to be its own.

    Nothing is fetched from the hub because a config says so: `CodeModel.use_tokenizer` does it where a user does.

    Raises:
        SmaltiError: no such tokenizer here, or another than the prior's.
    """
    return PixelTokenizer(config.pixels) if config.pixels else open_trained(config, device)


def open_trained(config: PriorConfig, device: str = "cpu") -> TrainedTokenizer:
    """The tokenizer of a prior whose codes are not pixels; see `open_tokenizer`."""
    if not Path(config.tokenizer).is_dir():
        what = f"the tokenizer {config.tokenizer_hash[:12]} of this prior is not at {config.tokenizer}"
        raise SmaltiError(f"{what}; say where it is by --tokenizer, a folder or owner/name on the hub")
    tokenizer = TrainedTokenizer(Autoencoder.from_pretrained(config.tokenizer, device=device))
    config.check_tokenizer(tokenizer.source_hash)
    return tokenizer
