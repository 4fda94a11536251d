"""Routes of tokenizers: encode, decode, reconstruct."""

from typing import TYPE_CHECKING, Any

from smalti.server.batches import Batches
from smalti.server.bodies import CODES, IMAGE, PNG
from smalti.server.limits import body_of
from smalti.server.served import Served, chosen

if TYPE_CHECKING:
    from fastapi import APIRouter


def routes(served: Served) -> "APIRouter":
    """An image to codes, codes to an image, and both."""
    from fastapi import APIRouter, Query, Request
    from fastapi.responses import Response

    named = Query(None, max_length=200, description="a tokenizer of /v1/models; by default the first")
    router, share, limits = APIRouter(), served.turns.share, served.limits
    tokenizers = {name: Batches(model, limits) for name, model in served.tokenizers.items()}

    @router.post("/encode", openapi_extra=IMAGE, summary="An image file to codes")
    async def encode(request: Request, model: str | None = named) -> dict[str, Any]:
        own = chosen(tokenizers, model)
        return await share(own.encode, await body_of(request, limits))

    @router.post(
        "/decode", openapi_extra=CODES, summary="Codes to an image, PNG", responses=PNG, response_class=Response
    )
    async def decode(request: Request, model: str | None = named) -> Response:
        own = chosen(tokenizers, model)
        return Response(await share(own.decode, await body_of(request, limits)), media_type="image/png")

    @router.post("/reconstruct", openapi_extra=IMAGE, summary="An image through its codes, PNG",
                 responses=PNG, response_class=Response)  # fmt: skip
    async def reconstruct(request: Request, model: str | None = named) -> Response:
        own = chosen(tokenizers, model)
        return Response(await share(own.reconstruct, await body_of(request, limits)), media_type="image/png")

    return router
