"""The prior coder: entropy coding of codes under a trained autoregressive prior, so that files decode on any machine.

The encoder has the logits of all positions at once, the decoder steps through them with the prior's cache; both turn
them into the same integers by `frequencies`. Images whose grid is not the prior's are cut into tiles of its grid; what
a tile has beyond the image repeats the code before it and is not written.

To verify is to decode with the codes known, and to hold the log-odds of every step against those that the encoder had,
in units of the noise that its shifts allow for. A prior whose two ways of computing differ on one machine by more than
`MOST_NOISE` of that might differ by more than all of it between two, so what it wrote is not kept, read or not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smalti.codec.coders import Coder, Shape
from smalti.codec.errors import NotReadBack
from smalti.codec.frequencies import MOST_SHIFTS, Decisions, decisions, find_shift, frequencies, read_codes, shift_of
from smalti.codec.streams import Booleans, Floats, Integers, StreamReader, StreamWriter
from smalti.errors import SmaltiError
from smalti.modes import evaluating
from smalti.priors.base import CausalPrior
from smalti.priors.code_model import CodeModel

CODES_AT_ONCE = 1 << 15  # of the tiles that are stepped side by side
MOST_TILES_AT_ONCE = 128
LOGITS_AT_ONCE = 1 << 24
BLOCKS = (1024, 512, 256, 128, 64, 32)  # codes that share a shift: the first for which every block has one
MOST_RICE, RICE = 12, 2
MOST_NOISE = 0.5  # of what the shifts allow for; trained priors use 0.05 to 0.3 of it on one machine


class Sent(NamedTuple):
    """What the encoder knew of some tiles (B, T) when it wrote them."""

    tiles: Integers
    odds: Floats  # (T, L, B)
    noise: Floats  # (T, L, B); -1 where nothing is asked

    def check(self, step: int, here: Booleans, logits: Tensor, found: Integers) -> None:
        """Hold a step's logits (B, K) and the codes (B,) that were read against it, of the tiles that are `here`.

        Raises:
            NotReadBack: other codes, or too much noise.
        """
        told, noise = np.ascontiguousarray(self.tiles[:, step]), self.noise[step]
        asked = (noise >= 0) & here
        moved = np.abs(decisions(logits, told).odds.T - self.odds[step])[asked]
        most = float((moved / np.maximum(noise[asked], 1e-300)).max(initial=0))
        if not most <= MOST_NOISE or (found != told)[here].any():
            moves = f"rounding moves this prior's logits by {most:.2g} times the noise that the coder allows for"
            raise NotReadBack(f"{moves}; up to {MOST_NOISE} is safe")


class PriorCoder(Coder):
    """The coder of a trained causal prior, without a condition; `progress` shows a bar.

    Raises:
        SmaltiError: a prior that is not causal, or that cannot do without a condition.
    """

    images_per_chunk = 128
    by_network = True
    least_bits = 1 / BLOCKS[0]  # a block has a shift

    def __init__(self, model: CodeModel, *, progress: bool = False):
        super().__init__(model.config.codebook_size)
        if not isinstance(model.prior, CausalPrior):
            kind = model.config.prior["kind"]
            raise SmaltiError(f"a {kind} is not causal and cannot code; use a pixelcnn, pixelsnail or transformer")
        if model.prior.conditions.count and not model.config.condition_dropout:
            raise SmaltiError("with condition_dropout 0 this prior cannot do without a condition; train one that can")
        self.prior, self.progress = evaluating(model.prior), progress
        self.grid, self.num_codes, self.device = self.prior.grid, self.prior.num_codes, self.prior.device
        self.tiles_at_once = max(1, min(MOST_TILES_AT_ONCE, CODES_AT_ONCE // self.num_codes))

    def _condition(self, count: int) -> Tensor | None:
        conditions = self.prior.conditions
        shape = (count,) if conditions.length is None else (count, conditions.length)
        return torch.full(shape, -1, device=self.device) if conditions.count else None

    # ------------------------------------------------------------------ encoding

    def _write(self, writer: StreamWriter, codes: Integers, shapes: Sequence[Shape]) -> list[Sent]:
        places = tile_places(shapes, self.grid)
        last = np.maximum.accumulate(np.where(places >= 0, np.arange(self.num_codes), 0), axis=1)
        tiles = codes[np.take_along_axis(places, last, axis=1)]
        return [self._encode(tiles[part], places[part] >= 0, writer) for part in self._parts(len(tiles))]

    def _parts(self, count: int) -> list[slice]:
        return [slice(start, start + self.tiles_at_once) for start in range(0, count, self.tiles_at_once)]

    def _encode(self, tiles: Integers, real: Booleans, writer: StreamWriter) -> Sent:
        """Tiles (B, T), of which `real` (B, T) are written: block after block, step after step, bit after bit."""
        odds, noise = (values.transpose(1, 2, 0) for values in self._decisions(tiles))  # the decoder's order: (T, L, B)
        asked = (noise >= 0) & real.T[:, None]
        block, numbers = self._blocks(odds, noise, asked)
        rice = min(range(MOST_RICE + 1), key=lambda bits: sum((number >> bits) + bits for number in numbers))
        writer.rice(BLOCKS.index(block), 0)
        writer.rice(rice, RICE)
        bits = tiles.T[:, None] >> np.arange(odds.shape[1] - 1, -1, -1)[:, None] & 1  # (T, L, B)
        for steps, number in zip(steps_of(block, *tiles.shape), numbers, strict=True):
            writer.rice(number, rice)
            where = asked[steps]
            writer.bits(bits[steps][where], frequencies(odds[steps][where], _shift(number)))
        return Sent(tiles, odds, noise)

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

    def _decisions(self, tiles: Integers) -> Decisions:
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

    def _read(
        self, reader: StreamReader, codes: Integers, shapes: Sequence[Shape], told: Sequence[Sent] | None = None
    ) -> None:
        places = tile_places(shapes, self.grid)
        parts = self._parts(len(places))
        known = told or [None] * len(parts)
        tiles = np.concatenate(
            [self._decode(places[part] >= 0, reader, sent) for part, sent in zip(parts, known, strict=True)]
        )
        codes[places[places >= 0]] = tiles[places >= 0]

    def _decode(self, real: Booleans, reader: StreamReader, sent: Sent | None) -> Integers:
        """Tiles (B, T); held against what was sent, step after step, if that is known."""
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
                    if here.all():
                        tiles[:, step] = read_codes(logits, shift, reader)
                    else:
                        tiles[:, step] = tiles[:, step - 1] if step else 0
                        tiles[here, step] = read_codes(logits[torch.from_numpy(here)], shift, reader)
                    reader.check_end()
                    if sent is not None:
                        sent.check(step, here, logits, tiles[:, step])
                    previous = torch.from_numpy(tiles[:, step]).to(self.device)
                    bar.update()
        return tiles


def _shift(number: int) -> int | None:
    """The shift with this number; None if no shift would do: the bits of such a block are written as they are."""
    return None if number == MOST_SHIFTS else int(shift_of(number))


def steps_of(codes: int, tiles: int, num_codes: int) -> list[slice]:
    """Blocks of steps with about so many codes each."""
    size = max(1, codes // tiles)
    return [slice(start, min(start + size, num_codes)) for start in range(0, num_codes, size)]


def tile_places(shapes: Sequence[Shape], grid: tuple[int, int]) -> Integers:
    """Where the codes of all tiles (B, T) of images of these shapes lie among the images' codes; -1 beyond an image.

    Several codes at a position stand side by side, as in `TrainedTokenizer`.
    """
    tiles, start = [], 0
    for depth, height, width in shapes:
        image = np.arange(start, start + depth * height * width).reshape(depth, height, width)
        rows = image.transpose(1, 2, 0).reshape(height, width * depth)
        beyond = [(0, -side % tile) for side, tile in zip(rows.shape, grid, strict=True)]
        padded = np.pad(rows, beyond, constant_values=-1)
        cut = padded.reshape(padded.shape[0] // grid[0], grid[0], -1, grid[1]).transpose(0, 2, 1, 3)
        tiles.append(cut.reshape(-1, grid[0] * grid[1]))
        start += image.size
    return np.concatenate(tiles)
