"""The server, put together: its routes under /v1, its errors, and the pages of the studio."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import smalti
from smalti.errors import SmaltiError
from smalti.server import archives, documentation, priors, tokenizers
from smalti.server.limits import Refused, check_token
from smalti.server.served import Served, chosen

if TYPE_CHECKING:
    from fastapi import FastAPI

ROUTES = (tokenizers.routes, priors.routes, archives.routes)


def application(served: Served, pages: Mapping[str, str] | None = None, token: str | None = None) -> "FastAPI":
    """A server of models.

    Args:
        served: the models, and the limits of what is taken.
        pages: of the studio, by the names of tokenizers.
        token: that every request to the API has to bear; None asks for none.
    """
    from fastapi import Depends, FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse

    async def bears_token(request: Request) -> None:
        check_token(request, token)

    app = FastAPI(title="smalti", version=smalti.__version__, lifespan=served.turns.lasting,
                  docs_url=None, redoc_url=None)  # their pages load from elsewhere  # fmt: skip
    guarded = [Depends(bears_token)]
    for routes in ROUTES:
        app.include_router(routes(served), prefix="/v1", dependencies=guarded)

    @app.exception_handler(SmaltiError)
    async def refused(_: Request, error: SmaltiError) -> JSONResponse:
        status = error.status if isinstance(error, Refused) else 422
        return JSONResponse({"detail": str(error)}, status, {"Retry-After": "1"} if status == 429 else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = error.errors()[0]
        return JSONResponse({"detail": f"{wrong['loc'][-1]}: {wrong['msg']}"}, 422)

    @app.get("/health", summary="Whether it runs")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": smalti.__version__, "waiting": served.turns.count}

    @app.get("/v1/models", dependencies=guarded, summary="What each model is")
    async def list_models() -> list[dict[str, Any]]:
        return served.listed()

    @app.get("/", summary="The studio", response_class=HTMLResponse)
    async def studio(model: Annotated[str | None, Query(max_length=200)] = None) -> HTMLResponse:
        return HTMLResponse(chosen(pages or {}, model))

    @app.get("/docs", include_in_schema=False)
    async def describe(request: Request) -> HTMLResponse:
        address = f"{request.url.scheme}://{request.url.netloc}"
        return HTMLResponse(documentation.page(app.openapi(), address, served.limits, token is not None))

    return app
