"""A chunk of pictures to its bytes and back: the one text of what a file's writer and its reader share."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smalti.codec.adaptive import least_bits
from smalti.codec.coders import Coder, Codes
from smalti.codec.container import Sections
from smalti.codec.errors import CannotDecode, DamagedFile, NotReadBack
from smalti.codec.images import Picture, PictureModel, pack_alpha, unpack_alpha
from smalti.codec.lossless import LEVELS, pack_pixels, unpack_pixels
from smalti.codec.streams import check_room
from smalti.codec.tables import ImageEntry


class Chunk(NamedTuple):
    """A chunk that was packed."""

    data: bytes
    refusal: NotReadBack | None  # why it was written by the other coder


class ChunkCoder:
    """Packs pictures into chunks, and unpacks them: `depth` codes at a position, every pixel if `lossless`."""

    def __init__(self, model: PictureModel, coder: Coder, *, depth: int, lossless: bool):
        self.model, self.coder, self.depth, self.lossless = model, coder, depth, lossless

    def pack(self, pictures: Sequence[Picture], *, verify: bool = False, instead: Coder | None = None) -> Chunk:
        """The bytes of a chunk.

        Args:
            pictures: of the chunk.
            verify: read back what was written: codes, pixels, opacities.
            instead: the coder of a chunk whose codes are not read back.

        Raises:
            NotReadBack: nothing else was there instead.
        """
        entries, pixels = [picture.entry for picture in pictures], [picture.pixels for picture in pictures]
        grids, refusal = [self.model.codes_of(picture, self.depth) for picture in pictures], None
        try:
            stream = self.coder.encode(grids, verify=verify)
        except NotReadBack as error:
            if instead is None:
                raise
            stream, refusal = instead.encode(grids, verify=verify), error
        opacities = [
            (entry, picture.alpha) for entry, picture in zip(entries, pictures, strict=True) if entry.transparent
        ]
        alphas = [pack_alpha(alpha) for _, alpha in opacities if alpha is not None]
        means = self._means(grids, entries) if self.lossless else []
        exact = pack_pixels(pixels, means) if self.lossless else []
        if verify:
            again = list(unpack_pixels(exact, means) if self.lossless else pixels)
            again += [unpack_alpha(data, entry) for data, (entry, _) in zip(alphas, opacities, strict=True)]
            written = [*pixels, *(alpha for _, alpha in opacities)]
            if not all(map(np.array_equal, again, written)):
                raise NotReadBack("the pixels of a chunk are not read as they were written")
        return Chunk(Sections(stream, alphas, exact).pack(self._checksum(entries, grids, pixels)), refusal)

    def unpack(self, sections: Sections, entries: Sequence[ImageEntry]) -> list[Picture]:
        """The pictures of a chunk.

        Raises:
            DamagedFile: the chunk cannot be what `pack` made.
            CannotDecode: its checksum does not fit.
        """
        grids = self.codes(sections, entries)
        if self.lossless:  # before the model is run
            values = sum(entry.num_pixels * entry.channels for entry in entries)
            check_room(values, least_bits(LEVELS), len(sections.pixels[1]))
        pixels = unpack_pixels(sections.pixels, self._means(grids, entries)) if self.lossless else []
        if not sections.pack(self._checksum(entries, grids, pixels)).endswith(sections.stored):
            rounding = " or this machine's network differs too much from the one that wrote it"
            fault = "the file is damaged" + rounding * (self.lossless or self.coder.by_network)
            raise CannotDecode(f"a checksum does not fit: {fault}")
        if not self.lossless:
            pixels = [self.model.pixels(codes, entry) for codes, entry in zip(grids, entries, strict=True)]
        opacities = iter(sections.alphas)
        alphas = [unpack_alpha(next(opacities), entry) if entry.transparent else None for entry in entries]
        parts = zip(entries, pixels, alphas, grids, strict=True)
        return [
            Picture(entry.mode, image, alpha, entry.name, entry.profile, codes) for entry, image, alpha, codes in parts
        ]

    def codes(self, sections: Sections, entries: Sequence[ImageEntry]) -> list[Codes]:
        """The codes (depth, h, w) of a chunk's images, not yet checked; a DamagedFile, if the model has none such."""
        shapes = [self.model.grid(entry, self.depth) for entry in entries]
        grids = self.coder.decode(sections.stream, shapes)
        if any(int(grid.max()) >= self.coder.codebook_size for grid in grids):
            raise DamagedFile("a stream is damaged")
        return grids

    def _means(self, grids: Sequence[Codes], entries: Sequence[ImageEntry]) -> list[Tensor]:
        """The decoded images (C, H, W), each with as many channels as its pixels."""
        images = [self.model.decode(codes, entry) for codes, entry in zip(grids, entries, strict=True)]
        return [
            image.expand(entry.channels, -1, -1) if len(image) <= entry.channels else image.mean(0, keepdim=True)
            for image, entry in zip(images, entries, strict=True)
        ]

    def _checksum(self, entries: Sequence[ImageEntry], grids: Sequence[Codes], pixels: list[NDArray[np.uint8]]) -> int:
        """CRC-32 of sizes and modes, of codes of 32 bits each, and of the pixels where they are stored."""
        check = zlib.crc32(b"".join(entry.pack() for entry in entries))
        for values in (*(grid.astype("<u4") for grid in grids), *(pixels if self.lossless else ())):
            check = zlib.crc32(values.tobytes(), check)
        return check
