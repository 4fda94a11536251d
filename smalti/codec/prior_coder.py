"""The prior coder: entropy coding of codes under a trained autoregressive prior, so that files decode on any machine.

The encoder has the logits of all positions at once, the decoder steps through them with the prior's cache; both turn
them into the same integers by `frequencies`. Images whose grid is not the prior's are cut into tiles of its grid; what
a tile has beyond the image repeats the code before it and is not written.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from smalti.codec.coders import Coder, Codes, Shape
from smalti.codec.errors import DamagedFile
from smalti.codec.frequencies import (
    MOST_SHIFTS,
    Booleans,
    Decisions,
    Floats,
    decisions,
    find_shift,
    frequencies,
    read_codes,
    shift_of,
    tree_depth,
)
from smalti.codec.streams import SLACK_BITS, StreamReader, StreamWriter
from smalti.errors import SmaltiError
from smalti.priors.base import CausalPrior
from smalti.priors.code_model import CodeModel

CODES_AT_ONCE = 1 << 15  # of the tiles that are stepped side by side
MOST_TILES_AT_ONCE = 128
LOGITS_AT_ONCE = 1 << 24
BLOCKS = (1024, 512, 256, 128, 64, 32)  # codes that share a shift: the first for which every block has one
MOST_RICE, RICE = 12, 2


class PriorCoder(Coder):
    """The coder of a trained causal prior, without a condition.

    Args:
        model: the prior.
        progress: show a bar.

    Raises:
        SmaltiError: a prior that is not causal, or that cannot do without a condition.
    """

    images_per_chunk = 128
    by_network = True

    def __init__(self, model: CodeModel, *, progress: bool = False):
        super().__init__(model.config.codebook_size)
        if not isinstance(model.prior, CausalPrior):
            kind = model.config.prior["kind"]
            raise SmaltiError(f"a {kind} is not causal and cannot code; use a pixelcnn, pixelsnail or transformer")
        if model.prior.conditions.count and not model.config.condition_dropout:
            raise SmaltiError(
                "this prior was trained with condition_dropout 0 and cannot do without a condition; train one that can"
            )
        self.prior, self.progress = model.prior.eval(), progress
        self.grid, self.device = model.prior.grid, model.prior.device
        self.num_codes = model.prior.num_codes
        self.tiles_at_once = max(1, min(MOST_TILES_AT_ONCE, CODES_AT_ONCE // self.num_codes))

    def _condition(self, count: int) -> Tensor | None:
        conditions = self.prior.conditions
        if not conditions.count:
            return None
        shape = (count,) if conditions.length is None else (count, conditions.length)
        return torch.full(shape, -1, device=self.device)

    # ------------------------------------------------------------------ encoding

    def encode(self, grids: Sequence[Codes]) -> bytes:
        """The codes' bits under the prior, a few per cent of a bit a code more."""
        writer = StreamWriter()
        tiles, real = to_tiles(grids, self.grid)
        for start in range(0, len(tiles), self.tiles_at_once):
            part = slice(start, start + self.tiles_at_once)
            self._encode(tiles[part], real[part], writer)
        return writer.finish()

    def _encode(self, tiles: NDArray[np.int64], real: NDArray[np.bool_], writer: StreamWriter) -> None:
        """Tiles (B, T), of which `real` (B, T) are written: block after block, step after step, bit after bit."""
        found = self._decisions(tiles)  # (B, T, L), in the decoder's order: (T, L, B)
        odds, noise = found.odds.transpose(1, 2, 0), found.noise.transpose(1, 2, 0)
        asked = (noise >= 0) & real.T[:, None]
        block, numbers = self._blocks(odds, noise, asked)
        rice = min(range(MOST_RICE + 1), key=lambda bits: sum((number >> bits) + bits for number in numbers))
        writer.rice(BLOCKS.index(block), 0)
        writer.rice(rice, RICE)
        bits = tiles.T[:, None] >> np.arange(tree_depth(self.codebook_size) - 1, -1, -1)[:, None] & 1  # (T, L, B)
        for steps, number in zip(steps_of(block, *tiles.shape), numbers, strict=True):
            writer.rice(number, rice)
            where = asked[steps]
            writer.bits(bits[steps][where], frequencies(odds[steps][where], _shift(number)))

    def _blocks(self, odds: Floats, noise: Floats, asked: Booleans) -> tuple[int, list[int]]:
        """The largest blocks that all have a shift, or else the smallest; and each one's number, or MOST_SHIFTS."""
        numbers: list[int] = []
        for size in BLOCKS:
            blocks = steps_of(size, odds.shape[2], self.num_codes)
            found = [find_shift(odds[steps][asked[steps]], noise[steps][asked[steps]]) for steps in blocks]
            numbers = [MOST_SHIFTS if number is None else number for number in found]
            if None not in found:
                return size, numbers
        return BLOCKS[-1], numbers

    def _decisions(self, tiles: NDArray[np.int64]) -> Decisions:
        """The decisions on the way to every code: (B, T, L)."""
        at_once = max(1, LOGITS_AT_ONCE // (self.num_codes * self.codebook_size))
        parts = []
        for start in tqdm(range(0, len(tiles), at_once), desc="coding", disable=not self.progress, leave=False):
            chosen = tiles[start : start + at_once]
            codes = torch.from_numpy(chosen).view(-1, *self.grid).to(self.device)
            with torch.inference_mode():
                logits = self.prior.logits(codes, self._condition(len(codes))).flatten(0, 2).float().cpu()
            parts.append([values.reshape(*chosen.shape, -1) for values in decisions(logits, chosen.reshape(-1))])
        return Decisions(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    # ------------------------------------------------------------------ decoding

    def decode(self, stream: bytes, shapes: Sequence[Shape]) -> list[Codes]:
        """The codes, drawn from the stream as a sampler draws from random numbers."""
        reader, count = StreamReader(stream), sum(map(math.prod, shapes))
        if count > BLOCKS[0] * (8 * len(stream) + SLACK_BITS):  # a block takes a bit at least
            raise DamagedFile(f"{count} codes cannot be in {len(stream)} bytes")
        real = np.concatenate([real_of(shape, self.grid) for shape in shapes])
        parts = []
        for start in range(0, len(real), self.tiles_at_once):
            parts.append(self._decode(real[start : start + self.tiles_at_once], reader))
        return from_tiles(np.concatenate(parts), shapes, self.grid)

    def _decode(self, real: NDArray[np.bool_], reader: StreamReader) -> NDArray[np.int64]:
        """Tiles (B, T)."""
        block, rice = BLOCKS[reader.rice(0, len(BLOCKS) - 1)], reader.rice(RICE, MOST_RICE)
        tiles = np.zeros(real.shape, np.int64)
        bar = tqdm(total=self.num_codes, desc="decoding", unit="code", disable=not self.progress, leave=False)
        with torch.inference_mode(), bar:
            stepper = self.prior.stepper(len(real), self._condition(len(real)))
            previous: Tensor | None = None
            for steps in steps_of(block, len(real), self.num_codes):
                shift = _shift(reader.rice(rice, MOST_SHIFTS))
                for step in range(steps.start, steps.stop):
                    logits, here = stepper.step(previous).cpu(), real[:, step]
                    tiles[:, step] = tiles[:, step - 1] if step else 0
                    tiles[here, step] = read_codes(logits[torch.from_numpy(here)], shift, reader)
                    previous = torch.from_numpy(tiles[:, step]).to(self.device)
                    bar.update()
        return tiles


def _shift(number: int) -> int | None:
    """The shift of a block with this number; None if no shift would do, and its bits are written as they are."""
    return None if number == MOST_SHIFTS else int(shift_of(number))


def steps_of(codes: int, tiles: int, num_codes: int) -> list[slice]:
    """Blocks of steps with about so many codes each."""
    size = max(1, codes // tiles)
    return [slice(start, min(start + size, num_codes)) for start in range(0, num_codes, size)]


# ------------------------------------------------------------------ tiles


def real_of(shape: Shape, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Which codes of its tiles belong to an image, (tiles, T)."""
    depth, height, width = shape
    image = np.ones((height, width * depth), bool)
    return _cut(image, grid)


def to_tiles(grids: Sequence[Codes], grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The tiles (B, T) of all images, and which of their codes belong to an image, (B, T).

    Several codes at a position stand side by side, as in `TrainedTokenizer`.
    """
    tiles = np.concatenate([_cut(codes.transpose(1, 2, 0).reshape(codes.shape[1], -1), grid) for codes in grids])
    real = np.concatenate([real_of(_shape(codes), grid) for codes in grids])
    last = np.maximum.accumulate(np.where(real, np.arange(tiles.shape[1]), 0), axis=1)
    return np.take_along_axis(tiles, last, axis=1), real


def from_tiles(tiles: NDArray[np.int64], shapes: Sequence[Shape], grid: tuple[int, int]) -> list[Codes]:
    """The codes of images of these shapes from their tiles."""
    result, place = [], 0
    for depth, height, width in shapes:
        down, across = _tiles(height, width * depth, grid)
        image = tiles[place : place + down * across].reshape(down, across, *grid).transpose(0, 2, 1, 3)
        image = image.reshape(down * grid[0], across * grid[1])[:height, : width * depth]
        result.append(image.reshape(height, width, depth).transpose(2, 0, 1))
        place += down * across
    return result


def _shape(codes: Codes) -> Shape:
    depth, height, width = codes.shape
    return depth, height, width


def _tiles(height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    return -(-height // grid[0]), -(-width // grid[1])


def _cut(image: NDArray[Any], grid: tuple[int, int]) -> NDArray[Any]:
    """(height, width) as tiles (B, T), filled up with zeros."""
    down, across = _tiles(image.shape[0], image.shape[1], grid)
    height, width = image.shape
    padded = np.zeros((down * grid[0], across * grid[1]), image.dtype)
    padded[:height, :width] = image
    return padded.reshape(down, grid[0], across, grid[1]).transpose(0, 2, 1, 3).reshape(down * across, -1)
