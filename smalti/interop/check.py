"""The check that ends a conversion: bundled pictures to codes, to pictures, to codes again."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smalti.data.emoji import read_tile
from smalti.errors import SmaltiError
from smalti.images.fidelity import mse, psnr_db
from smalti.models.autoencoder import Autoencoder

PICTURES, SIDE, STEP = 4, 4, 50  # pictures of SIDE x SIDE tiles, every 50th: 256 x 256 pixels
LEAST_PSNR = 12.0  # dB; of pictures in the wrong range of values it is less


class Check(NamedTuple):
    """What became of the pictures."""

    num_images: int
    num_codes: int
    agree: float | None  # of the codes of the reconstructions, the share that is the same
    psnr: float | None  # dB, mean over the pictures; None without a decoder
    used: int  # different codes

    @property
    def in_words(self) -> str:
        """One line, with a warning where the weights do not seem to be these networks'."""
        text = f"{self.num_images} pictures, {self.num_codes:,} codes, {self.used:,} different ones"
        if self.agree is None or self.psnr is None:
            return f"{text}; without a decoder there is no picture of them"
        text += f"; codes -> picture -> codes agree in {self.agree:.0%}; PSNR {self.psnr:.1f} dB"
        if self.psnr >= LEAST_PSNR:
            return text
        return f"{text}: BELOW {LEAST_PSNR:g} dB, so untrained weights, or another range of values or kind of codes"


def pictures(channels: int) -> Tensor:
    """Pictures (B, C, 256, 256) float32 in [0, 1] of the bundled emoji, grey where C is 1.

    Raises:
        SmaltiError: neither grey nor colour.
    """
    if channels not in (1, 3):
        raise SmaltiError(f"there are no bundled pictures of {channels} channels to check it with")
    tiles = [read_tile(index * STEP) for index in range(PICTURES * SIDE**2)]
    rows = [np.concatenate(tiles[start : start + SIDE], axis=1) for start in range(0, len(tiles), SIDE)]
    sheets = [np.concatenate(rows[start : start + SIDE]) for start in range(0, len(rows), SIDE)]
    images = torch.from_numpy(np.stack(sheets)).permute(0, 3, 1, 2).float() / 255
    return images if channels == 3 else images.mean(1, keepdim=True)


def check(model: Autoencoder, has_decoder: bool = True) -> Check:
    """Send the bundled pictures through a model with codes."""
    images = pictures(model.config.preprocessing.channels)
    codes = model.encode(images)
    used = len(codes.unique())
    if not has_decoder:
        return Check(len(images), codes.numel(), None, None, used)
    decoded = model.decode(codes, (images.shape[2], images.shape[3]))
    agree = (model.encode(decoded) == codes).float().mean()
    psnr = psnr_db(mse(images, decoded.cpu())).mean()
    return Check(len(images), codes.numel(), float(agree), float(psnr), used)
