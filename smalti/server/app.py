"""The API, under /v1: models, encode, decode, reconstruct; and the pages of the studio."""

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch

import smalti
from smalti.errors import SmaltiError
from smalti.images.opening import bad_images, open_image
from smalti.images.reading import to_images, to_pil
from smalti.interop.onnx import described
from smalti.models.autoencoder import Autoencoder
from smalti.server.limits import Limits, Refused, Turns, body_of, check_token

if TYPE_CHECKING:
    from fastapi import FastAPI

T = TypeVar("T")
IMAGE = {"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}
CODES = {"requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": {
    "codes": {"type": "array", "description": "(h, w) integers, or (q, h, w)"},
    "size": {"type": "array", "items": {"type": "integer"}, "description": "[H, W] to crop the image to"},
}, "required": ["codes"]}}}}}  # fmt: skip


def application(
    models: Mapping[str, Autoencoder],
    pages: Mapping[str, str] | None = None,
    token: str | None = None,
    limits: Limits | None = None,
) -> "FastAPI":
    """A server of tokenizers.

    Args:
        models: by the names under which they are asked for.
        pages: of the studio, by the same names.
        token: that every request has to bear; None asks for none.
        limits: of what is taken.
    """
    from fastapi import Depends, FastAPI, Query, Request
    from fastapi.responses import HTMLResponse, JSONResponse, Response

    Name = Annotated[str | None, Query(max_length=200, description="one of /v1/models; by default the first")]
    limits = limits or Limits()

    async def bears_token(request: Request) -> None:
        check_token(request, token)

    turns, guarded = Turns(limits.waiting), [Depends(bears_token)]
    app = FastAPI(title="smalti", version=smalti.__version__, lifespan=turns.lasting,
                  docs_url=None, redoc_url=None)  # their pages load from elsewhere  # fmt: skip

    async def image_of(request: Request, model: Autoencoder) -> torch.Tensor:
        data = await body_of(request, limits)
        return await turns.take(lambda: _image(data, model, limits))

    @app.exception_handler(SmaltiError)
    async def refused(_: Request, error: SmaltiError) -> JSONResponse:
        status = error.status if isinstance(error, Refused) else 422
        return JSONResponse({"detail": str(error)}, status, {"Retry-After": "1"} if status == 429 else None)

    @app.get("/health", summary="Whether it runs")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": smalti.__version__, "waiting": turns.count}

    @app.get("/v1/models", dependencies=guarded, summary="What each model is")
    async def list_models() -> list[dict[str, Any]]:
        return [{"name": name, **described(model)} for name, model in models.items()]

    @app.post("/v1/encode", dependencies=guarded, openapi_extra=IMAGE, summary="An image file to codes")
    async def encode(request: Request, model: Name = None) -> dict[str, Any]:
        own = _chosen(models, model)
        image = await image_of(request, own)
        codes = await turns.take(lambda: own.encode(image)[0].tolist())
        return {"codes": codes, "size": list(image.shape[-2:]), "model_hash": own.source_hash}

    @app.post("/v1/decode", dependencies=guarded, openapi_extra=CODES, summary="Codes to an image, PNG")
    async def decode(request: Request, model: Name = None) -> Response:
        own = _chosen(models, model)
        body = await body_of(request, limits)
        codes, size = await turns.take(lambda: _codes(body, own, limits))
        return Response(await turns.take(lambda: _png(own.decode(codes, size))), media_type="image/png")

    @app.post("/v1/reconstruct", dependencies=guarded, openapi_extra=IMAGE, summary="An image through its codes, PNG")
    async def reconstruct(request: Request, model: Name = None) -> Response:
        own = _chosen(models, model)
        image = await image_of(request, own)
        return Response(await turns.take(lambda: _png(own.reconstruct(image))), media_type="image/png")

    @app.get("/", summary="The studio", response_class=HTMLResponse)
    async def studio(model: Name = None) -> HTMLResponse:
        return HTMLResponse(_chosen(pages or {}, model))

    return app


def _chosen(held: Mapping[str, T], name: str | None) -> T:
    """What is held under a name; without a name the first.

    Raises:
        Refused: 404.
    """
    found = next(iter(held.values()), None) if name is None else held.get(name)
    if found is None:
        raise Refused(404, f"there is no such model here; there are: {', '.join(held) or 'none'}")
    return found


def _image(data: bytes, model: Autoencoder, limits: Limits) -> torch.Tensor:
    """The image (1, C, H, W) of a file, whose header is read first.

    Raises:
        SmaltiError: no image, or too many pixels.
    """
    with bad_images("the image"), open_image(data, "the image") as opened:
        height, width = opened.height, opened.width
    if height * width > limits.pixels:
        raise SmaltiError(f"the image has {width}x{height} pixels; at most {limits.pixels:,} are taken")
    return torch.stack(to_images([data], model.config.preprocessing.reading))


def _codes(body: bytes, model: Autoencoder, limits: Limits) -> tuple[torch.Tensor, tuple[int, int] | None]:
    """The codes (1, *grid) and the size of the image in a body.

    Raises:
        SmaltiError: no JSON of that form, or codes of more pixels than are decoded. Their range is held by `decode`.
    """
    try:
        value = json.loads(body)
        codes = torch.tensor(value["codes"], dtype=torch.int64)[None]
        size = value.get("size")
        wanted = None if size is None else (int(size[0]), int(size[1]))
        if wanted is not None and min(wanted) < 1:
            raise ValueError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, RecursionError, OverflowError):
        form = '{"codes": [[...], ...], "size": [H, W]}'
        raise SmaltiError(f"the body is no JSON of the form {form} with whole numbers of one grid") from None
    if codes.ndim != len(model.codes_bottleneck.code_axes.split()) or not codes.numel():
        raise SmaltiError(
            f"codes must be ({', '.join(model.codes_bottleneck.code_axes.split()[1:])}), none of them empty"
        )
    if codes.shape[-1] * codes.shape[-2] * model.stride**2 > limits.pixels:
        raise SmaltiError(f"these codes are an image of more than the {limits.pixels:,} pixels that are decoded")
    return codes, wanted


def _png(images: torch.Tensor) -> bytes:
    file = io.BytesIO()
    to_pil(images)[0].save(file, "PNG")
    return file.getvalue()
