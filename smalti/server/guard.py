"""What a request is refused for before it is read: whom it is addressed to, who sends it, how much is here already."""

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from smalti.server.limits import Limits, Refused

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = {  # what a browser is told of every answer
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """In front of an application.

    A page of another site can make its own name point to this machine, and a browser then takes the server for that
    site's: a request is for one of our names, and what a page sends comes from a page of ours.

    Args:
        application: that takes what is let through.
        limits: of which `held_bytes` is what the bodies of all requests may have together.
        names: that requests may be addressed to; None: any.
    """

    def __init__(self, application: Application, limits: Limits, names: Collection[str] | None = LOOPBACK):
        self.application, self.limits, self.names = application, limits, names
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        own = 0

        async def counted() -> Message:
            nonlocal own
            message = await receive()
            size = len(message.get("body", b""))
            if self.held + size > self.limits.held_bytes:
                raise Refused(429, "too many bodies are here at a time; try again in a moment")
            own, self.held = own + size, self.held + size
            return message

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_encoded(POLICY)]
            await send(message)

        try:
            self._check(dict(scope["headers"]))
            await self.application(scope, counted, with_policy)
        except Refused as error:  # of an application's own there are none: it has answered
            await answer(with_policy, error.status, str(error))
        finally:
            self.held -= own

    def _check(self, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self.names is not None and name_of(host) not in self.names:
            names = ", ".join(self.names)
            raise Refused(421, f"this server is addressed as {names}; give --name for another name of it")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2].lower() != host.lower():
            raise Refused(403, "pages of other sites get no answer")


def name_of(host: str) -> str | None:
    """The name in HOST or HOST:PORT, small letters, without brackets; None where there is none."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname if parts.netloc == host and "@" not in host else None
    except ValueError:
        return None


async def answer(send: Send, status: int, text: str) -> None:
    """An error, as the API has it."""
    body = json.dumps({"detail": text}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    if status in (429, 503):
        headers["retry-after"] = "1"
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
