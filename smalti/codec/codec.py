"""Images to the bytes of a .smalti file and back, with a trained model and perhaps a prior."""

import io
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from smalti.codec.archive import ALPHA, GREY, Archive
from smalti.codec.coders import AdaptiveCoder, Coder, FixedCoder, HistogramCoder
from smalti.codec.container import CODERS, CRC, HASH_BYTES, Header, ImageEntry, chunk_is_full, chunks_of, varint
from smalti.codec.errors import CannotDecode, DamagedFile
from smalti.codec.images import Alpha, Codes, Picture, pack_alpha, to_picture, unpack_alpha
from smalti.codec.lossless import pack_pixels, unpack_pixels
from smalti.codec.prior_coder import PriorCoder
from smalti.errors import SmaltiError
from smalti.files import atomic_path
from smalti.images.reading import Images
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel

CoderName = Literal["fixed", "histogram", "adaptive", "prior"]
IMAGES_PER_CHUNK = {"fixed": 1024, "histogram": 1024, "adaptive": 1024, "prior": 128}


class Codec:
    """Compresses images with a model's codes, and decompresses them.

    Args:
        model: an autoencoder with a codebook, loaded from a folder.
        prior: a causal prior of its codes; needed for the coder "prior".
        coder: "fixed", "histogram", "adaptive" or "prior"; by default "prior" if there is one, else "adaptive".
        lossless: store what restores every pixel too.
        alpha: keep transparency, lay transparent images on white, or refuse them.
        depth: codes at a position to keep, of a model with several (residual); by default all.
        images_per_chunk: images that are coded together. More of them cost less; one of them cannot be decoded without
            those before it in its chunk.
        progress: show bars.

    Raises:
        SmaltiError: a model without codes, a prior of other codes or not causal, a depth that the model has not.
    """

    def __init__(
        self,
        model: Autoencoder,
        prior: CodeModel | None = None,
        *,
        coder: CoderName | None = None,
        lossless: bool = False,
        alpha: Alpha = "keep",
        depth: int | None = None,
        images_per_chunk: int | None = None,
        progress: bool = False,
    ):
        self.codes = Codes(model)
        bottleneck = self.codes.bottleneck
        if prior is not None:
            prior.config.check_tokenizer(model.source_hash)
        if not model.source_hash:
            raise SmaltiError("a file names its model by the hash of its weights; load the model from a folder")
        self.model, self.prior, self.lossless, self.progress = model, prior, lossless, progress
        self.alpha: Alpha = alpha
        self.coder_name: str = coder or ("prior" if prior else "adaptive")
        most = bottleneck.num_codebooks
        self.depth = most if depth is None else depth
        if not 1 <= self.depth <= most:
            raise SmaltiError(f"depth must lie in 1 to {most}, the codes at a position of this model, not {depth}")
        if self.depth < most and self.coder_name == "prior":
            raise SmaltiError(
                f"the prior models all {most} codes of a position; for depth {depth} use the adaptive coder"
            )
        if self.depth < most and model.config.bottleneck["kind"] != "residual_quantizer":
            raise SmaltiError(f"only a residual quantizer's codes can be cut to {depth}")
        self.images_per_chunk = IMAGES_PER_CHUNK[self.coder_name] if images_per_chunk is None else images_per_chunk
        if not 1 <= self.images_per_chunk <= 4096:
            raise SmaltiError(f"images_per_chunk must lie in 1 to 4096, not {images_per_chunk}")
        self._coder = self._make_coder(self.coder_name)

    def _make_coder(self, name: str) -> Coder:
        size = self.codes.bottleneck.codebook_size
        if name == "prior":
            if self.prior is None:
                raise SmaltiError("the coder 'prior' needs a trained prior of this model's codes; give one")
            return PriorCoder(self.prior, progress=self.progress)
        return {"fixed": FixedCoder, "histogram": HistogramCoder, "adaptive": AdaptiveCoder}[name](size)

    # ------------------------------------------------------------------ writing

    def compress(self, images: Images, names: Sequence[str] = ()) -> bytes:
        """One image, or several in one file.

        Args:
            images: paths, Pillow images, arrays or tensors; one or a list of them.
            names: of the images, to be stored.
        """
        buffer = io.BytesIO()
        self.write(buffer, (self.picture(image, name) for image, name in _named(images, names)))
        return buffer.getvalue()

    def picture(self, image: Images, name: str = "") -> Picture:
        """One image, as this codec stores it."""
        return to_picture(image, name, self.alpha, exact=self.lossless)

    def compress_to(self, path: Path | str, pictures: Iterable[Picture]) -> None:
        """Write a file from a stream of pictures; it appears under its name when it is whole."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            self.write(file, pictures)

    def write(self, file: BinaryIO, pictures: Iterable[Picture]) -> None:
        """Write pictures, of which only a chunk is held at a time.

        Raises:
            SmaltiError: none at all.
        """
        entries: list[ImageEntry] = []
        lengths: list[int] = []
        with tempfile.TemporaryFile() as chunks:
            for members in self._chunks(pictures):
                lengths.append(chunks.write(self._pack_chunk(members)))
                entries += [_entry(picture) for picture in members]
            if not entries:
                raise SmaltiError("there is no image to compress")
            header = Header(
                coder=self.coder_name, lossless=self.lossless, codebook_size=self.codes.bottleneck.codebook_size,
                stride=self.model.stride, depth=self.depth, model_hash=_short(self.model.source_hash),
                prior_hash=_short(self.prior.source_hash) if self.prior and self.coder_name == "prior" else "",
                images_per_chunk=self.images_per_chunk, images=tuple(entries), chunk_bytes=tuple(lengths),
            ).pack()  # fmt: skip
            file.write(header)
            chunks.seek(0)
            shutil.copyfileobj(chunks, file)

    def _chunks(self, pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
        """Pictures, a chunk at a time, cut as `chunks_of` cuts them."""
        members: list[Picture] = []
        pixels = 0
        for picture in pictures:
            more = picture.pixels.shape[0] * picture.pixels.shape[1]
            if chunk_is_full(len(members), pixels, more, self.images_per_chunk):
                yield members
                members, pixels = [], 0
            members.append(picture)
            pixels += more
        if members:
            yield members

    def sizes(self, pictures: Iterable[Picture]) -> dict[str, int]:
        """The bytes that the codes of some pictures take with every coder, in chunks as it would write them."""
        entries, grids, result = [], [], {}
        for picture in pictures:
            entries.append(_entry(picture))
            grids.append(self.codes.encode(picture.pixels, self.depth))
        names = [
            name
            for name in CODERS
            if name != "prior" or (self.prior and self.depth == self.codes.bottleneck.num_codebooks)
        ]
        for name in names:
            coder, parts = self._make_coder(name), chunks_of(entries, IMAGES_PER_CHUNK[name])
            result[name] = sum(len(coder.encode([grids[index] for index in part])) for part in parts)
        return result

    def _pack_chunk(self, pictures: list[Picture]) -> bytes:
        grids = [self.codes.encode(picture.pixels, self.depth) for picture in pictures]
        stream = self._coder.encode(grids)
        alphas = [pack_alpha(picture.alpha) for picture in pictures if picture.alpha is not None]
        exact: tuple[bytes, ...] = ()
        check = _check_codes([_entry(picture) for picture in pictures], grids)
        if self.lossless:
            means = [self._mean(codes, picture.pixels.shape) for codes, picture in zip(grids, pictures, strict=True)]
            exact = pack_pixels([picture.pixels for picture in pictures], means)
            check = _check_pixels(check, [picture.pixels for picture in pictures])
        extras = b"".join(varint(len(part)) + part for part in (*alphas, *exact))
        body = (varint(len(stream)) if extras else b"") + stream + extras
        return body + CRC.pack(zlib.crc32(body, check))

    def _mean(self, codes: NDArray[np.int64], shape: tuple[int, ...]) -> Tensor:
        """The decoded image (C, H, W) with as many channels as an image of a shape (H, W, C)."""
        image = self.codes.decode(codes, shape[0], shape[1])
        if image.shape[0] == shape[2]:
            return image
        return image.expand(shape[2], -1, -1) if image.shape[0] == 1 else image.mean(0, keepdim=True)

    # ------------------------------------------------------------------ reading

    def decompress(self, data: bytes) -> list[Image.Image]:
        """The images of a file, as Pillow images of their original size and kind.

        Raises:
            DamagedFile: not a file of `compress`, or not as it was written.
            CannotDecode: of another model or prior, or one whose codes cannot be found again.
        """
        with Archive(io.BytesIO(data)) as archive:
            return [image for _, image in self.images(archive)]

    def images(self, archive: Archive, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Image.Image]]:
        """(number, image) of some or all images of an open file, in the order of the file; reads only their chunks."""
        self.check(archive.header)
        wanted = set(range(len(archive)) if indices is None else indices)
        for number, members in enumerate(archive.chunks):
            if not wanted.isdisjoint(members):
                for index, picture in zip(members, self._unpack_chunk(archive, number), strict=True):
                    if index in wanted:
                        yield index, picture.image

    def check(self, header: Header) -> None:
        """Raise unless a file is one of this model and prior.

        Raises:
            CannotDecode: it is not; says which it needs.
        """
        if header.model_hash != _short(self.model.source_hash):
            raise CannotDecode(
                f"this file needs the model {header.model_hash}, not {_short(self.model.source_hash)}; give that one"
            )
        if header.coder == "prior" and (self.prior is None or header.prior_hash != _short(self.prior.source_hash)):
            own = f", not {_short(self.prior.source_hash)}" if self.prior else ""
            raise CannotDecode(f"this file needs the prior {header.prior_hash}{own}; give it by --prior")
        bottleneck = self.codes.bottleneck
        if (header.codebook_size, header.stride) != (
            bottleneck.codebook_size,
            self.model.stride,
        ) or header.depth > bottleneck.num_codebooks:
            raise DamagedFile("the header does not fit the model that it names")

    def read_codes(self, archive: Archive, number: int) -> list[NDArray[np.int64]]:
        """The codes (depth, h, w) of the images of a chunk, not yet checked."""
        entries = [archive.header.images[index] for index in archive.chunks[number]]
        return self._read_codes(archive.header, entries, archive.sections(number).stream)

    def _read_codes(self, header: Header, entries: list[ImageEntry], stream: bytes) -> list[NDArray[np.int64]]:
        shapes = [(header.depth, *self.codes.grid(entry.height, entry.width)) for entry in entries]
        grids = self._make_coder(header.coder).decode(stream, shapes)
        if any(int(grid.max()) >= header.codebook_size for grid in grids):
            raise DamagedFile("a stream is damaged")
        return grids

    def _unpack_chunk(self, archive: Archive, number: int) -> list[Picture]:
        header, sections = archive.header, archive.sections(number)
        entries = [header.images[index] for index in archive.chunks[number]]
        grids = self._read_codes(header, entries, sections.stream)
        check = _check_codes(entries, grids)
        if header.lossless:
            sizes = [(entry.height, entry.width, 1 if entry.mode in GREY else 3) for entry in entries]
            means = [self._mean(codes, size) for codes, size in zip(grids, sizes, strict=True)]
            shifts, exact = sections.pixels
            pixels = unpack_pixels(shifts, exact, means)
            _same(zlib.crc32(sections.body, _check_pixels(check, pixels)), sections.check, header)
        else:
            _same(zlib.crc32(sections.body, check), sections.check, header)
            pixels = [
                self.codes.pixels(self.codes.decode(codes, entry.height, entry.width), entry.mode)
                for codes, entry in zip(grids, entries, strict=True)
            ]
        alphas = iter(sections.alphas)
        return [
            Picture(
                entry.mode,
                image,
                unpack_alpha(next(alphas), entry.height, entry.width) if entry.mode in ALPHA else None,
                entry.name,
            )
            for entry, image in zip(entries, pixels, strict=True)
        ]


def _check_codes(entries: list[ImageEntry], grids: Sequence[NDArray[np.int64]]) -> int:
    """The checksum of sizes, modes and codes, of 32 bits each."""
    check = zlib.crc32(b"".join(entry.pack() for entry in entries))
    for grid in grids:
        check = zlib.crc32(grid.astype("<u4").tobytes(), check)
    return check


def _check_pixels(check: int, pixels: Sequence[NDArray[np.uint8]]) -> int:
    for image in pixels:
        check = zlib.crc32(image.tobytes(), check)
    return check


def _same(found: int, stored: int, header: Header) -> None:
    if found != stored:
        noise = (
            " or this machine's network differs too much from the one that wrote it"
            if header.coder == "prior" or header.lossless
            else ""
        )
        raise CannotDecode(f"a checksum does not fit: the file is damaged{noise}")


def _entry(picture: Picture) -> ImageEntry:
    height, width = picture.pixels.shape[:2]
    return ImageEntry(height, width, picture.mode, picture.name)


def _short(model_hash: str) -> str:
    return model_hash[: 2 * HASH_BYTES]


def _named(images: Images, names: Sequence[str]) -> list[tuple[Images, str]]:
    """(image, name) of one or several images."""
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 4:
        images = list(images)
    listed = list(images) if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    if names and len(names) != len(listed):
        raise SmaltiError(f"{len(names)} names for {len(listed)} images")
    return list(zip(listed, names or [""] * len(listed), strict=True))
