"""Who computes when: one thread for models, and what waits for the same work is done together."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from smalti.server.limits import Refused

T = TypeVar("T")
R = TypeVar("R")


class _Waiting(NamedTuple):
    """A value that waits for a function; the timer ends its patience."""

    function: Callable[[list[Any]], Iterable[Any]]
    value: Any
    result: asyncio.Future[Any]
    timer: asyncio.TimerHandle


class Turns:
    """One piece of work at a time on a thread of its own, and a bounded number of them waiting.

    Args:
        waiting: how many.
        seconds: that one of them waits until it begins.
    """

    def __init__(self, waiting: int, seconds: float = 60.0):
        self.waiting, self.seconds = waiting, seconds
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.busy = self.ended = False
        self._queue: deque[_Waiting] = deque()

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def take(self, work: Callable[[], T]) -> T:
        """The result of a piece of work, once it had its turn.

        Raises:
            Refused: 429, where too many wait; 503, where it would wait for too long, or the server ends.
        """
        return await self.share(lambda _: [work()], None)

    async def share(self, function: Callable[[list[T]], Iterable[R | Exception]], value: T) -> R:
        """What a function of many values makes of this one, in one call with all that wait for the same function.

        Nothing waits for company: what has gathered while the thread was busy is the next batch.

        Args:
            function: gives a result for each value, in order, or the error of that one; each is handed on as it comes.
            value: ours.

        Raises:
            Refused: as of `take`.
        """
        if self.ended:
            raise Refused(503, "the server ends")
        if self.busy and self.count >= self.waiting:
            raise Refused(429, "too many requests wait; try again in a moment")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[R] = loop.create_future()
        late = Refused(503, f"the model was busy for {self.seconds:g} seconds; try again later")
        timer = loop.call_later(self.seconds, self._refuse, result, late)
        self._queue.append(_Waiting(function, value, result, timer))
        self._begin()
        return await result

    def end(self) -> None:
        """Refuse what waits, and what comes; what has begun is finished."""
        self.ended = True
        for waiting in [*self._queue]:
            self._refuse(waiting.result, Refused(503, "the server ends"))

    @asynccontextmanager
    async def lasting(self, _: Any) -> AsyncIterator[None]:
        """For as long as the server runs; what has begun is finished at its end."""
        yield
        self.end()
        self.thread.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        if self.busy or not self._queue:
            return
        function = self._queue[0].function
        batch = [waiting for waiting in self._queue if waiting.function == function]
        self._queue = deque(waiting for waiting in self._queue if waiting.function != function)
        for waiting in batch:
            waiting.timer.cancel()
        batch = [waiting for waiting in batch if not waiting.result.done()]  # others have gone away
        if not batch:
            return self._begin()
        self.busy = True
        done = asyncio.get_running_loop().run_in_executor(self.thread, self._compute, function, batch)
        done.add_done_callback(self._next)

    def _next(self, done: asyncio.Future[None]) -> None:
        self.busy = False
        done.result()  # `_compute` raises nothing
        self._begin()

    def _compute(self, function: Callable[[list[Any]], Iterable[Any]], batch: list[_Waiting]) -> None:
        """On the thread: hand on each result as it comes."""
        left, missing = iter(batch), Exception("there are fewer results than values")
        try:
            for result in function([waiting.value for waiting in batch]):
                _hand_on(next(left), result)
        except Exception as error:
            missing = error
        for waiting in left:
            _hand_on(waiting, missing)

    def _refuse(self, result: asyncio.Future[Any], why: Refused) -> None:
        self._queue = deque(waiting for waiting in self._queue if waiting.result is not result)
        _settle(result, why)


def _hand_on(waiting: _Waiting, result: Any) -> None:
    waiting.result.get_loop().call_soon_threadsafe(_settle, waiting.result, result)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # nobody waits any more
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
