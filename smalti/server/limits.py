"""What a stranger may ask of a server: bytes, pixels, seconds, and requests at a time."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from smalti.errors import SmaltiError

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")


class Refused(SmaltiError):
    """A request that gets no answer, and the status of HTTP that says so."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Of one server.

    Attributes:
        upload_bytes: of the body of a request.
        pixels: of an image, as its header states them, before any is decoded; and of what codes decode to.
        logits: that a prior computes for a request: images x positions x codes.
        waiting: requests that may wait for the model; the next one is told to come again (429).
        body_seconds: until a body has arrived.
        work_seconds: that a prior samples for one request.
    """

    upload_bytes: int = 1 << 24
    pixels: int = 1 << 24
    logits: int = 1 << 27
    waiting: int = 32
    body_seconds: float = 20.0
    work_seconds: float = 120.0


class Turns:
    """One piece of work at a time on a thread of its own, and a bounded number of them waiting.

    Args:
        waiting: how many.
    """

    def __init__(self, waiting: int):
        self.waiting, self.count = waiting, 0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def take(self, work: Callable[[], T]) -> T:
        """The result of a piece of work, once it had its turn.

        Raises:
            Refused: 429, where too many wait.
        """
        if self.count > self.waiting:
            raise Refused(429, "too many requests wait; try again in a moment")
        self.count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, work)
        finally:
            self.count -= 1

    @asynccontextmanager
    async def lasting(self, _: Any) -> AsyncIterator[None]:
        """For as long as the server runs; what has begun is finished at its end."""
        yield
        self.thread.shutdown(cancel_futures=True)


async def body_of(request: "Request", limits: Limits) -> bytes:
    """The body of a request, which is given up where it is too long or too slow.

    Raises:
        Refused: 413, 408 or 400.
    """
    from starlette.requests import ClientDisconnect

    too_long = Refused(413, f"the body is longer than the {limits.upload_bytes:,} bytes that are taken")
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal() or len(length) > 12 or int(length) > limits.upload_bytes:
        raise too_long
    found = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                found += part
                if len(found) > limits.upload_bytes:
                    raise too_long
    except ClientDisconnect as error:
        raise Refused(400, "the body broke off") from error  # which nobody reads any more
    except TimeoutError as error:
        raise Refused(408, f"the body did not arrive within {limits.body_seconds:g} seconds") from error
    return bytes(found)


def check_token(request: "Request", token: str | None) -> None:
    """Where there is a token, a request has to bear it.

    Raises:
        Refused: 401.
    """
    given = request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise Refused(401, "this server asks for its token: Authorization: Bearer TOKEN")
