"""The API, under /v1: models, encode, decode, reconstruct; and the pages of the studio."""

import io
import json
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

import smalti
from smalti.errors import SmaltiError
from smalti.images.opening import bad_images, open_image
from smalti.images.reading import to_images, to_pil
from smalti.interop.onnx import described
from smalti.models.autoencoder import Autoencoder
from smalti.server.limits import Limits, Turns, body_of, guard

Name = Annotated[str | None, Query(max_length=200, description="one of /v1/models; by default the first")]
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
) -> FastAPI:
    """A server of tokenizers.

    Args:
        models: by the names under which they are asked for.
        pages: of the studio, by the same names.
        token: that every request has to bear; None asks for none.
        limits: of what is taken.
    """
    limits = limits or Limits()
    turns, guarded = Turns(limits.waiting), [Depends(guard(token))]
    app = FastAPI(title="smalti", version=smalti.__version__, lifespan=turns.lasting,
                  docs_url=None, redoc_url=None)  # their pages load from elsewhere  # fmt: skip
    pages = pages or {}

    def named(name: str | None) -> Autoencoder:
        found = next(iter(models.values())) if name is None else models.get(name)
        if found is None:
            raise HTTPException(404, f"there is no such model here; there are {', '.join(models)}")
        return found

    async def image_of(request: Request, model: Autoencoder) -> torch.Tensor:
        data = await body_of(request, limits)
        return await turns.take(lambda: _image(data, model, limits))

    @app.exception_handler(SmaltiError)
    async def refused(_: Request, error: SmaltiError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.get("/health", summary="Whether it runs")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": smalti.__version__, "waiting": turns.count}

    @app.get("/v1/models", dependencies=guarded, summary="What each model is")
    async def list_models() -> list[dict[str, Any]]:
        return [{"name": name, **described(model)} for name, model in models.items()]

    @app.post("/v1/encode", dependencies=guarded, openapi_extra=IMAGE, summary="An image file to codes")
    async def encode(request: Request, model: Name = None) -> dict[str, Any]:
        own = named(model)
        image = await image_of(request, own)
        codes = await turns.take(lambda: own.encode(image)[0].tolist())
        return {"codes": codes, "size": list(image.shape[-2:]), "model_hash": own.source_hash}

    @app.post("/v1/decode", dependencies=guarded, openapi_extra=CODES, summary="Codes to an image, PNG")
    async def decode(request: Request, model: Name = None) -> Response:
        own = named(model)
        codes, size = _codes(await body_of(request, limits), own, limits)
        return _png(await turns.take(lambda: own.decode(codes, size)))

    @app.post("/v1/reconstruct", dependencies=guarded, openapi_extra=IMAGE, summary="An image through its codes, PNG")
    async def reconstruct(request: Request, model: Name = None) -> Response:
        own = named(model)
        image = await image_of(request, own)
        return _png(await turns.take(lambda: own.reconstruct(image)))

    @app.get("/", summary="The studio", response_class=HTMLResponse)
    async def studio(model: Name = None) -> HTMLResponse:
        page = next(iter(pages.values()), None) if model is None else pages.get(model)
        if page is None:
            raise HTTPException(404, "there is no page here; the API is described at /openapi.json")
        return HTMLResponse(page)

    return app


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


def _png(images: torch.Tensor) -> Response:
    file = io.BytesIO()
    to_pil(images)[0].save(file, "PNG")
    return Response(file.getvalue(), media_type="image/png")
