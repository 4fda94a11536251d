"""What a stranger may ask of a server: bytes, pixels, seconds, and requests at a time."""

import asyncio
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smalti.errors import SmaltiError

if TYPE_CHECKING:
    from starlette.requests import Request


class Refused(SmaltiError):
    """A request that gets no answer, and the status of HTTP that says so."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Of one server; what each is of, is in `MEANINGS`."""

    upload_bytes: int = 1 << 24
    held_bytes: int = 1 << 27
    pixels: int = 1 << 24
    logits: int = 1 << 27
    waiting: int = 32
    wait_seconds: float = 60.0
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    work_seconds: float = 120.0
    end_seconds: float = 20.0
    connections: int = 512


MEANINGS = {
    "upload_bytes": "bytes of the body of a request (413)",
    "held_bytes": "bytes of all bodies that are here at a time; with more, a request is told to come again (429)",
    "pixels": "pixels of an image, as its header states them, before any is decoded, and of what codes decode to (422)",
    "logits": "numbers that a prior computes for a request: images x positions x codes (422)",
    "waiting": "requests that wait for the model; the next one is told to come again (429)",
    "wait_seconds": "seconds until the model begins with a request, which is given up later (503)",
    "head_seconds": "seconds until the head of a request has arrived (408), and in which an answer must get on",
    "body_seconds": "seconds until a body has arrived (408)",
    "work_seconds": "seconds that a prior samples for one request, which then ends with an error",
    "end_seconds": "seconds that the server waits, when it is told to end, for what has begun",
    "connections": "connections open at a time; one more ends the one that has asked for nothing for the longest",
}


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
