"""Answers that take long: lines of JSON, first how far the work is, at last its result."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from smalti.errors import SmaltiError
from smalti.priors.sampling import Progress
from smalti.server.served import Served
from smalti.server.turns import Turns

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

NDJSON = "application/x-ndjson"
Work = Callable[[Progress], dict[str, Any]]


class Left(SmaltiError):
    """Nobody waits for the result any more."""


class Watched:
    """A piece of work on the thread of the models, which is heard from while it lasts and ends where it is let go.

    Args:
        turns: whose thread it is.
        work: gives the last line, and tells how far it is.
        seconds: that it may take.
    """

    def __init__(self, turns: Turns, work: Work, seconds: float):
        self.seconds = seconds
        self.loop, self.news, self.left = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        self.line: dict[str, Any] | None = None
        self.result = asyncio.create_task(turns.take(lambda: self._begun(work)))
        self.result.add_done_callback(lambda _: self.news.set())

    def _begun(self, work: Work) -> dict[str, Any]:
        self._check()
        self.end = time.monotonic() + self.seconds
        return work(self._told)

    def _told(self, done: int, of: int) -> None:
        self._check()
        if time.monotonic() > self.end and done < of:
            raise SmaltiError(f"this takes longer than the {self.seconds:g} seconds that are given; ask for less")
        self.line = {"progress": done, "of": of}
        self.loop.call_soon_threadsafe(self.news.set)

    def _check(self) -> None:
        if self.left.is_set():
            raise Left("nobody waits for this any more")

    def let_go(self) -> None:
        """It ends at its next step, and nobody hears of that."""
        self.left.set()
        self.result.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def begun(self, request: "Request") -> None:
        """Once there is something to say.

        Raises:
            SmaltiError: it came to nothing, or who asked has gone.
        """
        heard = asyncio.create_task(self.news.wait())
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({heard, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (heard, gone):
                task.cancel()
        if not self.news.is_set():
            raise Left("who asked has gone")
        if self.result.done():
            self.result.result()

    async def lines(self) -> AsyncIterator[str]:
        """The newest line of progress whenever one is taken, then the result, or what went wrong."""
        while not self.result.done():
            await self.news.wait()
            self.news.clear()
            line, self.line = self.line, None
            if line is not None:
                yield _text(line)
        try:
            yield _text(self.result.result())
        except SmaltiError as error:
            yield _text({"error": str(error)})
        except Exception:
            yield _text({"error": "the server failed"})
            raise


async def streamed(request: "Request", served: Served, work: Work) -> "StreamingResponse":
    """The answer to a request: its lines. A request that goes away ends the work.

    Raises:
        SmaltiError: of the work, before its first step was done.
    """
    from starlette.responses import StreamingResponse

    watched = Watched(served.turns, work, served.limits.work_seconds)

    async def lines() -> AsyncIterator[str]:
        try:
            async for line in watched.lines():
                yield line
        finally:
            watched.let_go()

    try:
        await watched.begun(request)
    except BaseException:
        watched.let_go()
        raise
    return StreamingResponse(lines(), media_type=NDJSON)


async def _gone(request: "Request") -> None:
    """Once who asked has gone; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value) + "\n"
