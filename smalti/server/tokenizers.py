"""Routes of tokenizers: encode, decode, reconstruct."""

from typing import TYPE_CHECKING, Annotated, Any

from smalti.server.bodies import CODES, IMAGE, codes_of, image_of, png_of
from smalti.server.limits import body_of
from smalti.server.served import Served, chosen

if TYPE_CHECKING:
    from fastapi import APIRouter


def routes(served: Served) -> "APIRouter":
    """An image to codes, codes to an image, and both."""
    from fastapi import APIRouter, Query, Request
    from fastapi.responses import Response

    Name = Annotated[str | None, Query(max_length=200, description="a tokenizer of /v1/models; by default the first")]
    router, take, limits = APIRouter(), served.turns.take, served.limits

    @router.post("/encode", openapi_extra=IMAGE, summary="An image file to codes")
    async def encode(request: Request, model: Name = None) -> dict[str, Any]:
        own, data = chosen(served.tokenizers, model), await body_of(request, limits)
        image = await take(lambda: image_of(data, own, limits))
        codes = await take(lambda: own.encode(image)[0].tolist())
        return {"codes": codes, "size": list(image.shape[-2:]), "model_hash": own.source_hash}

    @router.post("/decode", openapi_extra=CODES, summary="Codes to an image, PNG")
    async def decode(request: Request, model: Name = None) -> Response:
        own, body = chosen(served.tokenizers, model), await body_of(request, limits)
        codes, size = await take(lambda: codes_of(body, own, limits))
        return Response(await take(lambda: png_of(own.decode(codes, size))), media_type="image/png")

    @router.post("/reconstruct", openapi_extra=IMAGE, summary="An image through its codes, PNG")
    async def reconstruct(request: Request, model: Name = None) -> Response:
        own, data = chosen(served.tokenizers, model), await body_of(request, limits)
        image = await take(lambda: image_of(data, own, limits))
        return Response(await take(lambda: png_of(own.reconstruct(image))), media_type="image/png")

    return router
