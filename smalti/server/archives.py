"""Routes of compressed files: compress, decompress, and how other formats do with as many bytes."""

import base64
import io
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image

from smalti.codec import Archive, Codec
from smalti.codec.codec import CoderName
from smalti.codec.images import Alpha, Picture
from smalti.codec.limits import IMAGES
from smalti.codec.rivals import at_hand, tries
from smalti.errors import SmaltiError
from smalti.generate.generator import Generator
from smalti.generate.tokenizer import TrainedTokenizer
from smalti.images.fidelity import mse, psnr_db
from smalti.images.remarks import Remarks
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel
from smalti.server.bodies import CODES, IMAGE, check_pixels, codes_of, png_file
from smalti.server.limits import body_of
from smalti.server.served import Served, chosen

if TYPE_CHECKING:
    from fastapi import APIRouter

T = TypeVar("T")
AskedCoder = Literal["auto", CoderName]
COMPARED_PX = 1 << 20  # of an image that every format is tried on, some thirty times in all
IMAGE_OR_CODES = {"requestBody": {"content": {**IMAGE["requestBody"]["content"], **CODES["requestBody"]["content"]}}}
ARCHIVE = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


def routes(served: Served) -> "APIRouter":
    """An image to a .smalti file and back, and that file beside JPEG, WebP and AVIF."""
    from fastapi import APIRouter, Query, Request
    from fastapi.responses import Response

    named = Query(None, max_length=200, description="a tokenizer, or a prior with its tokenizer")
    kept = Query(None, description="codes at a position to keep, of a residual quantizer")
    place = Query(0, ge=0, lt=IMAGES.most, description="of the image in the file")
    router, take, limits = APIRouter(), served.turns.take, served.limits

    @router.post("/compress", openapi_extra=IMAGE_OR_CODES, summary="An image, or codes, to a .smalti file")
    async def compress(
        request: Request, model: str | None = named, coder: AskedCoder = "auto", lossless: bool = False,
        alpha: Alpha = "keep", depth: int | None = kept,
    ) -> Response:  # fmt: skip
        tokenizer, prior = models_of(served, model, coder)
        body, json = await body_of(request, limits), "json" in request.headers.get("content-type", "")

        def work() -> bytes:
            options: dict[str, Any] = {"lossless": lossless, "alpha": alpha, "depth": depth}
            codec = Codec(tokenizer, prior, coder=None if coder == "auto" else coder, **options)
            if not json:
                return _file(codec, _picture(codec, body, limits.pixels))
            codes, size = codes_of(body, tokenizer, limits)
            return _file(codec, codec.coded(codes[0], size))

        return Response(await take(work), media_type="application/octet-stream")

    @router.post("/decompress", openapi_extra=ARCHIVE, summary="A .smalti file to its image, PNG, or its codes")
    async def decompress(request: Request, index: int = place, to: Literal["image", "codes"] = "image") -> Response:
        body = await body_of(request, limits)
        return await take(lambda: _answer(*_unpacked(served, body, index), to))

    @router.post(
        "/formats", openapi_extra=IMAGE, summary="The bytes of every coder, and JPEG, WebP and AVIF at as many"
    )
    async def formats(
        request: Request, model: str | None = named, coder: AskedCoder = "auto", depth: int | None = kept
    ) -> dict[str, Any]:
        models, body = models_of(served, model, coder), await body_of(request, limits)
        own: CoderName = ("prior" if models[1] else "adaptive") if coder == "auto" else coder
        found = await take(lambda: _coded(served, models, own, depth, body))
        original, num_bytes, rivals = found.pop("original"), found["smalti"]["num_bytes"], {}
        for name in at_hand():
            files, best = tries(original, name, num_bytes), (0, b"")
            while better := await take(partial(next, files, None)):  # each in a turn of its own: others come between
                best = better
            rivals[name] = await take(partial(_rival, original, *best, num_bytes))
        return {**found, "rivals": rivals}

    return router


def models_of(served: Served, name: str | None, coder: str) -> tuple[Autoencoder, CodeModel | None]:
    """The tokenizer and the prior that a name stands for; of a tokenizer that is to be coded by a prior, the first.

    Raises:
        Refused: 404.
        SmaltiError: a prior of pixels, or none that is served.
    """
    found = chosen({**served.tokenizers, **served.priors}, name)
    if isinstance(found, Generator):
        if not isinstance(found.tokenizer, TrainedTokenizer):
            raise SmaltiError("this is a prior of pixels; a .smalti file holds the codes of a tokenizer")
        return found.tokenizer.model, found.model
    return found, _prior_of(served, found) if coder == "prior" else None


def _prior_of(served: Served, model: Autoencoder) -> CodeModel:
    priors = (each.model for each in served.priors.values())
    prior = next((each for each in priors if each.config.tokenizer_hash == model.source_hash), None)
    if prior is None:
        raise SmaltiError("no prior of this tokenizer is served; ask for another coder")
    return prior


def _picture(codec: Codec, data: bytes, most_pixels: int) -> Picture:
    """The image of a file, whose header is read first."""
    check_pixels(data, most_pixels)
    return codec.picture(data, remarks=Remarks())


def _file(codec: Codec, picture: Picture) -> bytes:
    file = io.BytesIO()
    codec.write(file, [picture])
    return file.getvalue()


# ------------------------------------------------------------------ reading


def _unpacked(served: Served, data: bytes, index: int) -> tuple[Autoencoder, Picture]:
    """The model that a .smalti file states, and one of its images.

    Raises:
        SmaltiError: no such file, no such image, too many pixels, or a model that is not served.
    """
    with Archive(io.BytesIO(data)) as archive:
        if index >= len(archive):
            raise SmaltiError(f"the file has {len(archive)} images, from 0; there is none of index {index}")
        number = next(number for number, members in enumerate(archive.chunks) if index in members)
        pixels = sum(entry.num_pixels for entry in archive.entries(number))
        if pixels > served.limits.pixels:
            raise SmaltiError(
                f"this part of the file has {pixels:,} pixels; at most {served.limits.pixels:,} are decoded"
            )
        header = archive.header
        tokenizers = {model.source_hash: model for model in served.tokenizers.values()}
        priors = {prior.model.source_hash: prior.model for prior in served.priors.values()}
        model = _stated(tokenizers, header.model_hash, "model")
        codec = Codec(model, _stated(priors, header.prior_hash, "prior") if header.prior_hash else None)
        return model, next(picture for _, picture in codec.pictures(archive, [index]))


def _stated(held: Mapping[str, T], start: str, what: str) -> T:
    """What is held under a hash with this start.

    Raises:
        SmaltiError: nothing.
    """
    for whole, model in held.items():
        if start and whole.startswith(start):
            return model
    raise SmaltiError(f"this file needs the {what} {start}, which is not served here")


def _answer(model: Autoencoder, picture: Picture, to: Literal["image", "codes"]) -> Any:
    """A picture of a file, as PNG or as the codes that `/v1/decode` takes; null where the file keeps less than all."""
    from fastapi.responses import JSONResponse, Response

    if to == "image":
        return Response(png_file(picture.image), media_type="image/png")
    assert picture.codes is not None
    bottleneck, codes = model.codes_bottleneck, picture.codes
    whole = len(codes) == bottleneck.num_codebooks
    shape = bottleneck.grid_shape(*codes.shape[1:])
    about = {"codes": codes.reshape(shape).tolist() if whole else None, "size": list(picture.pixels.shape[:2])}
    return JSONResponse({**about, "model_hash": model.source_hash})


# ------------------------------------------------------------------ comparing


def _coded(
    served: Served, models: tuple[Autoencoder, CodeModel | None], own: CoderName, depth: int | None, data: bytes
) -> dict[str, Any]:
    """The original, its reconstruction, and the bytes of its file by every coder, or why it has none.

    Raises:
        SmaltiError: no image, too large a one, or no file by the coder that was asked for.
    """
    model, prior = models
    codec = Codec(model, alpha="drop", depth=depth)
    picture = _picture(codec, data, min(COMPARED_PX, served.limits.pixels))
    picture = picture._replace(codes=codec.picture_model.encode(picture.pixels, codec.depth))
    coders: dict[str, Any] = {}
    for name in get_args(CoderName):
        try:
            with_prior = (prior or _prior_of(served, model)) if name == "prior" else None
            coders[name] = _size(_file(Codec(model, with_prior, coder=name, depth=depth), picture), picture, name)
        except SmaltiError as error:
            if name == own:
                raise
            coders[name] = {"refused": str(error)}
    most = model.codes_bottleneck.num_codebooks
    pixels = codec.picture_model.pixels(codec.picture_model.codes_of(picture, codec.depth), picture.entry)
    return {
        "original": picture.image, "size": list(picture.pixels.shape[:2]), "depth": codec.depth,
        "depths": most if model.codes_bottleneck.prefix_decodable else 1, "coders": coders,
        "smalti": {"coder": own, **coders[own], **_shown(picture.image, picture._replace(pixels=pixels).image)},
    }  # fmt: skip


def _size(file: bytes, picture: Picture, coder: str) -> dict[str, Any]:
    """The bytes of a file.

    Raises:
        SmaltiError: it was written by another coder than was asked for.
    """
    with Archive(io.BytesIO(file)) as archive:
        written = archive.header.coder
    if written != coder:
        raise SmaltiError(f"this prior's logits are too noisy to code by; the {written} coder takes its place")
    return {"num_bytes": len(file), "bits_per_pixel": 8 * len(file) / picture.entry.num_pixels}


def _rival(original: Image.Image, quality: int, file: bytes, num_bytes: int) -> dict[str, Any]:
    """What another format makes of an image, beside a file of so many bytes."""
    with Image.open(io.BytesIO(file)) as opened:
        found = opened.convert(original.mode)
    about = {"quality": quality, "num_bytes": len(file), "fits": len(file) <= num_bytes}
    return {**about, "bits_per_pixel": 8 * len(file) / (found.width * found.height), **_shown(original, found)}


def _shown(original: Image.Image, found: Image.Image) -> dict[str, Any]:
    """An image beside its original: how far it is from it (null where it is the same), and its pixels."""
    both = (torch.from_numpy(np.array(image, np.float32).reshape(1, -1) / 255) for image in (original, found))
    distance = psnr_db(mse(*both)).item()
    png = base64.b64encode(png_file(found)).decode()
    return {"psnr_db": distance if math.isfinite(distance) else None, "png": png}
