"""uvicorn, with bounds that it does not have: of heads, idle connections, clients that take nothing, and its end."""

import asyncio
import json
import logging
import socket
import sys
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from smalti.errors import reason
from smalti.server.guard import Guard
from smalti.server.limits import Limits
from smalti.server.opening import Opening
from smalti.server.turns import Turns

BACKLOG = 128  # connections that the system holds for us; so many may come at once before one of them is seen
LONGEST_HEAD = 1 << 16  # bytes
TEXTS = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class Connection(H11Protocol):
    """One client. Its timer runs whenever it is the client's turn to ask, or to take what was answered."""

    limits: Limits
    left = 0  # bytes of answers that the client had not taken when the timer ended last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room where there are too many; the oldest of those that ask for nothing goes."""
        super().connection_made(transport)
        self.since, self.timeout_keep_alive = self.loop.time(), self.limits.head_seconds  # type: ignore
        self._watch()
        if len(self.connections) > most_connections(self.limits):
            others: list[Connection] = [one for one in self.connections if one is not self and not one.asks]  # type: ignore
            if others:
                oldest = min(others, key=lambda one: one.since)
                self.connections.discard(oldest)  # now: many may come before the loop has closed it
                oldest.transport.abort()
            else:
                self.refuse(503, "too many connections; try again in a moment")

    @property
    def asks(self) -> bool:
        """Whether there is a request that has no whole answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def owed(self) -> bool:
        """Whether a whole request is here, and its answer is not yet with the client."""
        whole = self.asks and not self.cycle.more_body
        return not self.transport.is_closing() and (whole or self.transport.get_write_buffer_size() > 0)

    def data_received(self, data: bytes) -> None:
        """As of the base, but that a part of a head is no reason to wait longer."""
        self.conn.receive_data(data)
        self.handle_events()

    def handle_events(self) -> None:
        """As of the base; once the head is there, the time for it is over."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # nonsense after an answer
            self.transport.abort()
        if self.asks and not self.flow.write_paused:
            self._unset_keepalive_if_required()

    def pause_writing(self) -> None:
        """As of the base; from now on the client has to take something."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """As of the base."""
        super().resume_writing()
        if self.asks:
            self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """As of the base, and the client is on its own again."""
        self.since = self.loop.time()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """No head, or an answer that is not taken: as long as the client takes some of it, it has time."""
        left, before = self.transport.get_write_buffer_size(), self.left
        self.left = left
        if left and (not before or left < before):
            self._watch()
        elif left or self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self.transport.abort()
        else:
            self.refuse(408, f"the head of the request did not arrive within {self.limits.head_seconds:g} seconds")

    def send_400_response(self, msg: str) -> None:
        """As an error of the API."""
        self.refuse(400, "this is no HTTP that is understood")

    def refuse(self, status: int, text: str) -> None:
        """An answer before there is a request, and the end of the connection."""
        body = json.dumps({"detail": text}).encode()
        head = f"HTTP/1.1 {status} {TEXTS[status]}\r\ncontent-type: application/json\r\n"
        if not self.asks or not self.cycle.response_started:  # in the midst of an answer is no place for another
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        if self.asks:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def shutdown(self) -> None:
        """As of the base."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            self.transport.abort()

    def _watch(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.limits.head_seconds, self.timeout_keep_alive_handler)


class Server(uvicorn.Server):
    """What listens; Ctrl+C and SIGTERM end it when what has begun is done, a second one at once.

    Args:
        guard: what every request goes through.
        opening: the application, which is loaded as soon as it listens.
        turns: of the models.
    """

    def __init__(self, guard: Guard, opening: Opening, turns: Turns):
        limits = guard.limits
        bounded = type("Connection", (Connection,), {"limits": limits})
        super().__init__(uvicorn.Config(
            guard, http=bounded, loop="asyncio", ws="none", lifespan="off", log_config=None, log_level="error",
            access_log=False, proxy_headers=False, server_header=False, backlog=BACKLOG,
            h11_max_incomplete_event_size=LONGEST_HEAD, timeout_graceful_shutdown=1,
        ))  # fmt: skip
        self.opening, self.turns, self.limits = opening, turns, limits
        self._said: set[str] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then load."""
        asyncio.get_running_loop().set_exception_handler(self._complain)
        await super().startup(sockets)
        self.opening.begin(self.stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what the model has begun, refuse what waits, and leave those who have not asked yet."""
        self.turns.end()
        for server in self.servers:
            server.close()
        time, connections = asyncio.get_running_loop().time, cast(set[Connection], self.server_state.connections)
        end = time() + self.limits.end_seconds
        while any(one.owed for one in connections) and not self.force_exit and time() < end:
            await asyncio.sleep(0.02)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off now is no error
        for connection in [*connections]:
            connection.transport.abort()
        await asyncio.sleep(0.02)  # until they are closed
        await super().shutdown(sockets)

    def stop(self) -> None:
        """End soon."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal; it is not raised again, as the base would."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Of the loop, in a line, once: without a file for it every connection of a crowd is such a case."""
        error = context.get("exception")
        text = f"smalti: {context['message']}" + (f": {reason(error)}" if error else "")
        if text not in self._said and len(self._said) < 100:
            self._said.add(text)
            print(text, file=sys.stderr)


def most_connections(limits: Limits) -> int:
    """How many may be open: half of the files that the system lets this process have, at most."""
    try:
        import resource
    except ImportError:  # Windows, where files are not counted
        return limits.connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(limits.connections, max(8, files // 2))


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
