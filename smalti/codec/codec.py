"""The codec: images to the bytes of a .smalti file and back, with a trained model and perhaps a prior."""

import io
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from PIL import Image

from smalti.codec.archive import Archive
from smalti.codec.chunks import ChunkCoder
from smalti.codec.coders import AdaptiveCoder, Coder, Codes, FixedCoder, HistogramCoder
from smalti.codec.container import HASH_BYTES, Header, cut
from smalti.codec.errors import CannotDecode, DamagedFile, NotReadBack
from smalti.codec.images import Alpha, Picture, PictureModel, to_picture
from smalti.codec.limits import CODEBOOK, DEPTH, IMAGES, IN_CHUNK, PIXELS, STRIDE, within
from smalti.codec.prior_coder import PriorCoder
from smalti.codec.tables import ImageTable, chunks_of
from smalti.errors import SmaltiError
from smalti.files import atomic_path
from smalti.images.reading import Images
from smalti.images.remarks import Remarks
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel

CoderName = Literal["fixed", "histogram", "adaptive", "prior"]
PLAIN_CODERS = {"fixed": FixedCoder, "histogram": HistogramCoder, "adaptive": AdaptiveCoder}  # which need no prior
INSTEAD = "adaptive"  # of a prior that is too noisy


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
        verify: read every chunk back when it is written. A chunk whose codes the prior might not give again is coded by
            the adaptive coder instead, with a warning.
        most_pixels: of an image to be decoded: it decides the memory that a file takes; by default 200 million.
        progress: show bars.

    Raises:
        SmaltiError: a model without codes, a prior of other codes or not causal, a depth that the model has not; a
            model that no file can name, or no coder can code.
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
        verify: bool = True,
        most_pixels: int | None = None,
        progress: bool = False,
    ):
        self.picture_model = PictureModel(model)
        bottleneck = self.picture_model.bottleneck
        if prior is not None:
            prior.config.check_tokenizer(model.source_hash)
        if lossless and (scale := model.config.preprocessing.value_range):
            raise SmaltiError(
                f"this model sees values of {scale} as 8 bits, which --lossless cannot undo; leave it out"
            )
        if not model.source_hash:
            raise SmaltiError("a file names its model by the hash of its weights; load the model from a folder")
        self.model, self.prior, self.lossless, self.progress = model, prior, lossless, progress
        self.alpha: Alpha = alpha
        self.verify, self.most_pixels = verify, PIXELS.most if most_pixels is None else most_pixels
        if self.most_pixels < 1:
            raise SmaltiError(f"most_pixels must be at least 1, not {most_pixels}")
        within(bottleneck.codebook_size, CODEBOOK)
        within(model.stride, STRIDE)
        within(bottleneck.num_codebooks, DEPTH)
        self.coder_name: str = coder or ("prior" if prior else "adaptive")
        most = bottleneck.num_codebooks
        self.depth = most if depth is None else depth
        if not 1 <= self.depth <= most:
            raise SmaltiError(f"depth must lie in 1 to {most}, the codes at a position of this model, not {depth}")
        if self.depth < most and self.coder_name == "prior":
            raise SmaltiError(
                f"the prior models all {most} codes of a position; depth {depth} takes the adaptive coder"
            )
        if self.depth < most and not bottleneck.prefix_decodable:
            raise SmaltiError(f"only a residual quantizer's codes can be cut to {depth}")
        self._chunks = ChunkCoder(self.picture_model, self._coder(self.coder_name), depth=self.depth, lossless=lossless)
        self.images_per_chunk = self._chunks.coder.images_per_chunk if images_per_chunk is None else images_per_chunk
        if not 1 <= self.images_per_chunk <= IN_CHUNK.most:
            raise SmaltiError(f"images_per_chunk must lie in 1 to {IN_CHUNK.most}, not {images_per_chunk}")

    def _coder(self, name: str) -> Coder:
        if name in PLAIN_CODERS:
            return PLAIN_CODERS[name](self.picture_model.bottleneck.codebook_size)
        if self.prior is None:
            raise SmaltiError("the coder 'prior' needs a trained prior of this model's codes; give one")
        return PriorCoder(self.prior, progress=self.progress)

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

    def picture(self, image: Images, name: str = "", remarks: Remarks | None = None) -> Picture:
        """One image, as this codec stores it; remarks on it are collected, or warned about at once."""
        reading = replace(self.model.config.preprocessing.reading, remarks=remarks)
        return to_picture(image, name, self.alpha, reading, exact=self.lossless)

    def coded(self, codes: torch.Tensor, size: tuple[int, int] | None = None) -> Picture:
        """Codes (*grid) of an image, perhaps changed by hand, as a picture: a file keeps them as they are.

        Args:
            codes: of one image, without the axis of the batch.
            size: (H, W) of the image; by default all that its codes decode to.

        Raises:
            SmaltiError: another grid than an image of this size has, or `lossless`, which needs the pixels.
        """
        if self.lossless:
            raise SmaltiError("codes hold no pixels that lossless could restore; leave it out, or give the image")
        grids = codes.cpu().numpy().reshape(-1, *codes.shape[-2:])
        height, width = size or tuple(side * self.model.stride for side in codes.shape[-2:])
        channels = self.picture_model.channels
        pixels = np.broadcast_to(np.uint8(255), (height, width, channels))  # of which a file keeps the size
        picture = Picture("L" if channels == 1 else "RGB", pixels, None, codes=grids)
        wanted = self.picture_model.grid(picture.entry.checked(), self.picture_model.bottleneck.num_codebooks)
        if grids.shape != wanted:
            raise SmaltiError(f"an image of {width}x{height} pixels has codes {wanted}, not {grids.shape}")
        return picture

    def compress_to(self, path: Path | str, pictures: Iterable[Picture]) -> None:
        """Write a file from a stream of pictures; it appears under its name when it is whole."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            self.write(file, pictures)

    def write(self, file: BinaryIO, pictures: Iterable[Picture]) -> None:
        """Write pictures, at least one; only a chunk of them is held at a time.

        Raises:
            SmaltiError: what no file can hold.
            NotReadBack: what was written is not what is read.
        """
        entries, lengths, coders, refusals = [], [], [], []
        instead = self._coder(INSTEAD) if self._chunks.coder.by_network else None
        with tempfile.TemporaryFile() as chunks:
            for members in cut(pictures, lambda picture: picture.entry.num_pixels, self.images_per_chunk):
                entries += [picture.entry.checked() for picture in members]
                within(len(entries), IMAGES)
                data, refusal = self._chunks.pack(members, verify=self.verify, instead=instead)
                lengths.append(chunks.write(data))
                coders.append(self.coder_name if refusal is None else INSTEAD)
                refusals += [refusal] * (refusal is not None)
            if not entries:
                raise SmaltiError("there is no image to compress")
            alike = coders[0] if len(set(coders)) == 1 else None
            coder = alike or self.coder_name
            header = Header(
                coder=coder, lossless=self.lossless, codebook_size=self.picture_model.bottleneck.codebook_size,
                stride=self.model.stride, depth=self.depth, model_hash=_short(self.model.source_hash),
                prior_hash=_short(self.prior.source_hash) if self.prior and coder == "prior" else "",
                images_per_chunk=self.images_per_chunk, images=ImageTable.of(entries), chunk_bytes=tuple(lengths),
                chunk_coders=() if alike else tuple(coders),
            )  # fmt: skip
            packed = header.pack()
            if self.verify and Header.read(io.BytesIO(packed), sum(lengths)) != header:
                raise NotReadBack("the header is not read as it was written")
            file.write(packed)
            chunks.seek(0)
            shutil.copyfileobj(chunks, file)
        if refusals:
            what = f"{len(refusals)} of {len(lengths)} chunks are coded by the {INSTEAD} coder"
            warnings.warn(f"{what}: {refusals[0]}", stacklevel=2)

    def sizes(self, pictures: Iterable[Picture]) -> dict[str, int]:
        """The bytes that the codes of some pictures take with every coder, in chunks as it would write them."""
        entries, grids = [], []
        for picture in pictures:
            entries.append(picture.entry)
            grids.append(self.picture_model.codes_of(picture, self.depth))
        whole = self.prior is not None and self.depth == self.picture_model.bottleneck.num_codebooks
        result = {}
        size = self.picture_model.bottleneck.codebook_size
        plain = [name for name, kind in PLAIN_CODERS.items() if size <= kind.most_codes]
        for name in [*plain, "prior"] if whole else plain:
            coder = self._coder(name)
            parts = chunks_of(entries, coder.images_per_chunk)
            result[name] = sum(len(coder.encode([grids[index] for index in part])) for part in parts)
        return result

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
        return ((number, picture.image) for number, picture in self.pictures(archive, indices))

    def pictures(self, archive: Archive, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Picture]]:
        """As `images`, with the codes of each."""
        self.check(archive.header)
        wanted = set(range(len(archive)) if indices is None else indices)
        coders: dict[str, ChunkCoder] = {}
        for number, members in enumerate(archive.chunks):
            if not wanted.isdisjoint(members):
                name = archive.header.coder_of(number)
                chunks = coders[name] = coders.get(name) or self._chunks_by(name, archive.header)
                pictures = chunks.unpack(archive.sections(number), archive.entries(number))
                for index, picture in zip(members, pictures, strict=True):
                    if index in wanted:
                        yield index, picture

    def read_codes(self, archive: Archive, number: int) -> list[Codes]:
        """The codes (depth, h, w) of the images of a chunk, not yet checked."""
        header = archive.header
        chunks = self._chunks_by(header.coder_of(number), header)
        return chunks.codes(archive.sections(number), archive.entries(number))

    def _chunks_by(self, coder: str, header: Header) -> ChunkCoder:
        return ChunkCoder(self.picture_model, self._coder(coder), depth=header.depth, lossless=header.lossless)

    def check(self, header: Header) -> None:
        """Raise unless a file is one of this model and prior.

        Raises:
            CannotDecode: it is not; says which it needs.
            DamagedFile: an image has more than `most_pixels`.
        """
        largest = int(header.images.num_pixels.max())
        if largest > self.most_pixels:
            raise DamagedFile(f"an image of {largest:,} pixels; --most_pixels allows {self.most_pixels:,}")
        model, prior = _short(self.model.source_hash), _short(self.prior.source_hash) if self.prior else ""
        if header.model_hash != model:
            raise CannotDecode(f"this file needs the model {header.model_hash}, not {model}; give that one")
        if header.prior_hash and header.prior_hash != prior:
            own = f", not {prior}" if prior else ""
            raise CannotDecode(f"this file needs the prior {header.prior_hash}{own}; give it by --prior")
        bottleneck = self.picture_model.bottleneck
        fits = (header.codebook_size, header.stride) == (bottleneck.codebook_size, self.model.stride)
        if not fits or header.depth > bottleneck.num_codebooks:
            raise DamagedFile("the header does not fit the model that it names")


def _short(model_hash: str) -> str:
    return model_hash[: 2 * HASH_BYTES]


def _single(images: Images) -> Iterator[Images]:
    """The images one by one, of lists and batches in any depth, as `to_images` takes them."""
    batch = isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 4
    if batch or (isinstance(images, Sequence) and not isinstance(images, str | bytes)):
        for part in images:
            yield from _single(part)
    else:
        yield images


def _named(images: Images, names: Sequence[str]) -> list[tuple[Images, str]]:
    """(image, name) of one or several images."""
    listed = list(_single(images))
    if names and len(names) != len(listed):
        raise SmaltiError(f"{len(names)} names for {len(listed)} images")
    return list(zip(listed, names or [""] * len(listed), strict=True))
