"""Images to the bytes of a .smalti file and back, with a trained model and perhaps a prior."""

import io
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from smalti.codec.coders import AdaptiveCoder, Coder, FixedCoder, HistogramCoder
from smalti.codec.container import CRC, HASH_BYTES, Header, ImageEntry, Reader, chunks_of, varint
from smalti.codec.errors import CannotDecode, DamagedFile
from smalti.codec.lossless import pack_residuals, unpack_residuals
from smalti.codec.network import PriorCoder
from smalti.codec.pictures import Alpha, Codes, Picture, pack_alpha, to_picture, unpack_alpha
from smalti.errors import SmaltiError
from smalti.files import atomic_path
from smalti.images import Images
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel

CoderName = Literal["fixed", "histogram", "adaptive", "prior"]
IMAGES_PER_CHUNK = {"fixed": 1024, "histogram": 1024, "adaptive": 1024, "prior": 128}
FIRST_BYTES = 1 << 16  # of a file, read to find how long its header is


class Written(NamedTuple):
    """What was written, and where the bytes went."""

    num_images: int
    num_bytes: int
    parts: dict[str, int]  # bytes: codes, alpha, residual, checks, header


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

    Example:
        >>> from smalti.codec import Codec
        >>> codec = Codec(Autoencoder.from_pretrained(run))
        >>> data = codec.compress(["a.png", "b.png"])
        >>> images = codec.decompress(data)
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
        self.model, self.prior, self.alpha, self.lossless, self.progress = model, prior, alpha, lossless, progress
        self.coder_name: str = coder or ("prior" if prior else "adaptive")
        most = bottleneck.num_codebooks
        self.depth = most if depth is None else depth
        if not 1 <= self.depth <= most:
            raise SmaltiError(f"depth must lie in 1 to {most}, the codes at a position of this model, not {depth}")
        if self.depth < most and self.coder_name == "prior":
            raise SmaltiError(f"the prior models all {most} codes of a position; for depth {depth} use the adaptive coder")
        if self.depth < most and model.config.bottleneck["kind"] != "residual":
            raise SmaltiError(f"only a residual quantizer's codes can be cut to {depth}")
        self.images_per_chunk = images_per_chunk or IMAGES_PER_CHUNK[self.coder_name]
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
        self.write(buffer, _named(images, names))
        return buffer.getvalue()

    def compress_to(self, path: Path | str, images: Iterable[tuple[Images, str]]) -> Written:
        """Write a file from a stream of (image, name); it appears under its name when it is whole."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            return self.write(file, images)

    def write(self, file: BinaryIO, images: Iterable[tuple[Images, str]]) -> Written:
        """Write images and their names, of which only a chunk is held at a time.

        Raises:
            SmaltiError: no image at all, an unreadable or a refused one.
        """
        entries: list[ImageEntry] = []
        lengths: list[int] = []
        parts = {"codes": 0, "alpha": 0, "residual": 0, "checks": 0}
        with tempfile.TemporaryFile() as chunks:
            for pictures in self._chunks(images):
                data = self._pack_chunk(pictures, parts)
                chunks.write(data)
                lengths.append(len(data))
                entries += [ImageEntry(*picture.pixels.shape[:2], picture.mode, picture.name) for picture in pictures]
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
        return Written(len(entries), len(header) + sum(lengths), {"header": len(header), **parts})

    def _chunks(self, images: Iterable[tuple[Images, str]]) -> Iterator[list[Picture]]:
        """Pictures, a chunk at a time, cut as `chunks_of` cuts them."""
        pictures: list[Picture] = []
        for image, name in images:
            pictures.append(to_picture(image, name, self.alpha, exact=self.lossless))
            entries = [ImageEntry(*picture.pixels.shape[:2], picture.mode) for picture in pictures]
            if len(chunks_of(entries, self.images_per_chunk)) > 1:
                yield pictures[:-1]
                pictures = pictures[-1:]
        if pictures:
            yield pictures

    def _pack_chunk(self, pictures: list[Picture], parts: dict[str, int]) -> bytes:
        grids = [self.codes.encode(picture.pixels, self.depth) for picture in pictures]
        stream = self._coder.encode(grids)
        alphas = [pack_alpha(picture.alpha) for picture in pictures if picture.alpha is not None]
        residuals: tuple[bytes, ...] = ()
        check = zlib.crc32(codes_bytes(grids))
        if self.lossless:
            means = [self._mean(codes, picture.pixels.shape) for codes, picture in zip(grids, pictures, strict=True)]
            residuals = pack_residuals([picture.pixels for picture in pictures], means)
            check = _check_pixels(check, [picture.pixels for picture in pictures])
        extras = b"".join(varint(len(part)) + part for part in (*alphas, *residuals))
        body = (varint(len(stream)) if extras else b"") + stream + extras
        parts["codes"] += len(stream)
        parts["alpha"] += sum(map(len, alphas))
        parts["residual"] += sum(map(len, residuals))
        parts["checks"] += len(body) - len(stream) - sum(map(len, (*alphas, *residuals))) + CRC.size
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

    def images(self, archive: "Archive", indices: Iterable[int] | None = None) -> Iterator[tuple[int, Image.Image]]:
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
            raise CannotDecode(f"this file needs the model {header.model_hash}, not {_short(self.model.source_hash)}; give it by --model")
        if header.coder == "prior" and (self.prior is None or header.prior_hash != _short(self.prior.source_hash)):
            own = f", not {_short(self.prior.source_hash)}" if self.prior else ""
            raise CannotDecode(f"this file needs the prior {header.prior_hash}{own}; give it by --prior")
        bottleneck = self.codes.bottleneck
        if (header.codebook_size, header.stride) != (bottleneck.codebook_size, self.model.stride) or header.depth > bottleneck.num_codebooks:
            raise DamagedFile("the header does not fit the model that it names")

    def _unpack_chunk(self, archive: "Archive", number: int) -> list[Picture]:
        header, members = archive.header, archive.chunks[number]
        entries = [header.images[index] for index in members]
        body, stored = archive.chunk(number)
        extras = header.lossless or any(entry.mode in ("RGBA", "LA") for entry in entries)
        reader = Reader(body)
        stream = reader.bytes(reader.number(len(body)) if extras else len(body))
        shapes = [(header.depth, *self.codes.grid(entry.height, entry.width)) for entry in entries]
        grids = self._make_coder(header.coder).decode(stream, shapes)
        check = zlib.crc32(codes_bytes(grids))
        if not header.lossless:
            _same(zlib.crc32(body, check), stored, header)
        alphas = [
            unpack_alpha(reader.bytes(reader.number(len(body))), entry.height, entry.width) if entry.mode in ("RGBA", "LA") else None
            for entry in entries
        ]  # fmt: skip
        channels = [1 if entry.mode in ("L", "LA") else 3 for entry in entries]
        if header.lossless:
            shifts, residual = (reader.bytes(reader.number(len(body))) for _ in range(2))
            means = [self._mean(codes, (entry.height, entry.width, count)) for codes, entry, count in zip(grids, entries, channels, strict=True)]
            pixels = unpack_residuals(shifts, residual, means)
            _same(zlib.crc32(body, _check_pixels(check, pixels)), stored, header)
        else:
            pixels = [
                self.codes.pixels(self.codes.decode(codes, entry.height, entry.width), entry.mode)
                for codes, entry in zip(grids, entries, strict=True)
            ]  # fmt: skip
        if reader.place != len(body):
            raise DamagedFile("a chunk is longer than what it says")
        return [
            Picture(entry.mode, image, alpha, entry.name) for entry, image, alpha in zip(entries, pixels, alphas, strict=True)
        ]  # fmt: skip


class Archive:
    """An open .smalti file: its header, and its chunks one by one.

    Args:
        file: opened for reading in binary, seekable; closed with the archive.

    Raises:
        DamagedFile: not such a file, cut off, changed, or with something behind it.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        data = file.read(FIRST_BYTES)
        need = header_bytes(data)
        self.header, self.start = Header.unpack(data + file.read(max(0, need - len(data))))
        self.chunks = chunks_of(self.header.images, self.header.images_per_chunk)
        file.seek(0, io.SEEK_END)
        size, end = file.tell(), self.start + sum(self.header.chunk_bytes)
        if size < end:
            raise DamagedFile(f"cut off: it should have {end} bytes and has {size}")
        if size > end:
            raise DamagedFile(f"{size - end} bytes behind the end, which do not belong to it")

    @classmethod
    def open(cls, path: Path | str) -> "Archive":
        """Open a file by its path."""
        path = Path(path)
        if not path.is_file():
            raise SmaltiError(f"{path} does not exist")
        file = path.open("rb")
        try:
            return cls(file)
        except DamagedFile as error:
            file.close()
            raise DamagedFile(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.header.images)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def chunk(self, number: int) -> tuple[bytes, int]:
        """The body of a chunk and its checksum."""
        lengths = self.header.chunk_bytes
        self.file.seek(self.start + sum(lengths[:number]))
        data = self.file.read(lengths[number])
        if len(data) < CRC.size or len(data) != lengths[number]:
            raise DamagedFile("a chunk is shorter than its checksum")
        return data[: -CRC.size], CRC.unpack(data[-CRC.size :])[0]


def header_bytes(data: bytes) -> int:
    """How many bytes of a file that begins with `data` its header takes, checksum included; at least, if cut off."""
    reader = Reader(data, min(5, len(data)))
    try:
        length = reader.number(1 << 28)
    except DamagedFile:
        return len(data)
    return reader.place + length + CRC.size


def codes_bytes(grids: Sequence[NDArray[np.int64]]) -> bytes:
    """Codes as they enter a checksum: 32 bits each."""
    return b"".join(grid.astype("<u4").tobytes() for grid in grids)


def _check_pixels(check: int, pixels: Sequence[NDArray[np.uint8]]) -> int:
    for image in pixels:
        check = zlib.crc32(np.ascontiguousarray(image), check)
    return check


def _same(found: int, stored: int, header: Header) -> None:
    if found != stored:
        noise = " or this machine's network differs too much from the one that wrote it" if header.coder == "prior" or header.lossless else ""
        raise CannotDecode(f"a checksum does not fit: the file is damaged{noise}")


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
