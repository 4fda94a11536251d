"""A server that answers before its models are there: pages made earlier at once, everything else when it can."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from smalti.server.guard import Application, Receive, Scope, Send
from smalti.server.limits import Refused


class Opening:
    """An application that is loaded on a thread, which takes as long as the import of PyTorch does.

    Args:
        pages: of the studio, by the names of all models, None where one is not made yet; the first is that of /.
        load: gives the application.
    """

    def __init__(self, pages: Mapping[str, bytes | None], load: Callable[[], Application]):
        self.pages, self.load = pages, load
        self.error: BaseException | None = None  # that loading ended with
        self._loaded: asyncio.Future[Application] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        page = self._page(scope)
        if page is None:
            application = await asyncio.shield(self._begun())
            return await application(scope, receive, send)
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(page)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page if scope["method"] == "GET" else b""})

    @property
    def done(self) -> bool:
        """Whether it is loaded, or cannot be."""
        return self._loaded is not None and self._loaded.done()

    def begin(self, failed: Callable[[], None]) -> None:
        """Load, within a running loop; tell where that fails, which `error` says more of."""
        self._begun().add_done_callback(lambda done: failed() if done.exception() else None)

    def _begun(self) -> "asyncio.Future[Application]":
        if self._loaded is None:
            loop = asyncio.get_running_loop()
            loaded = self._loaded = loop.create_future()

            def settle(found: Application | None, error: BaseException | None) -> None:
                self.error = error
                if loaded.done():  # nobody waits any more
                    return
                if found is None:
                    loaded.set_exception(Refused(503, "the models could not be loaded"))
                else:
                    loaded.set_result(found)

            def work() -> None:
                found = error = None
                try:
                    found = self.load()
                except BaseException as stop:
                    error = stop
                if not loop.is_closed():
                    loop.call_soon_threadsafe(settle, found, error)

            threading.Thread(target=work, name="loading", daemon=True).start()
        return self._loaded

    def _page(self, scope: Scope) -> bytes | None:
        """The page that is asked for, where it was made earlier."""
        if scope["path"] != "/" or scope["method"] not in ("GET", "HEAD"):
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("model")
        return self.pages.get(asked[-1] if asked else next(iter(self.pages), ""))
