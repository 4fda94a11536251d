"""Hostile and unlucky clients, on sockets of a real server: bounds hold, answers are one line, the end is clean."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from smalti.errors import SmaltiError
from smalti.server.limits import Limits

pytest.importorskip("uvicorn")
from smalti.server.connections import Server
from smalti.server.guard import LOOPBACK, Guard
from smalti.server.opening import Opening
from smalti.server.turns import Turns

LIMITS = Limits(head_seconds=0.4, end_seconds=5.0, connections=4)
LARGE = 1 << 22


async def echo(scope, receive, send):
    """The body, or many bytes where /large is asked for."""
    body, more = b"", True
    while more and scope["path"] != "/early":
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    answer = b"\0" * LARGE if scope["path"] == "/large" else body
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


@contextmanager
def serving(limits=LIMITS, pages=None, load=lambda: echo):
    """A server on a thread; gives what opens a connection to it."""
    turns, opening = Turns(2), Opening(pages or {}, load)
    server = Server(Guard(opening, limits), opening, turns)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as place:
        place.bind(f"{folder}/socket")
        place.listen(128)

        def connect():
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(10)
            client.connect(f"{folder}/socket")
            return client

        thread = threading.Thread(target=server.run, args=([place],))
        thread.start()
        try:
            yield connect, server
        finally:
            server.stop()
            thread.join(10)
            assert not thread.is_alive()


def request(path="/", body=b"", length=None, more=""):
    length = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n".encode() + body


def everything(client):
    """What comes until the server ends the connection."""
    found = b""
    try:
        while data := client.recv(1 << 20):
            found += data
    except ConnectionError:
        pass
    return found


def status_and_text(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    text = json.loads(body)["detail"]
    assert "\n" not in text
    return int(head.split()[1]), text


def asked(client, *arguments, **more):
    client.sendall(request(*arguments, **more))
    return whole(client)


def whole(client):
    """One answer."""
    found = b""
    while not found.partition(b"\r\n\r\n")[1]:
        found += client.recv(1 << 16)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += client.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def test_a_head_that_drips_is_given_up():
    with serving() as (connect, _), connect() as client, connect() as idle:
        start = time.monotonic()
        with pytest.raises(OSError):
            for byte in request() * 50:
                client.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - start < 5
        assert status_and_text(everything(client))[0] == 408
        assert everything(idle) == b""


def test_the_next_head_on_a_connection_has_its_own_time():
    with serving() as (connect, _), connect() as client:
        for _ in range(3):
            assert asked(client, "/", b"word").endswith(b"word")
            time.sleep(0.25)
        client.sendall(b"POST / HTTP")
        assert status_and_text(everything(client))[0] == 408


def test_the_oldest_idle_connection_makes_room_and_no_other():
    with serving(replace(LIMITS, head_seconds=30.0)) as (connect, server):
        busy = [connect() for _ in range(2)]
        for client in busy:
            client.sendall(request(length=4))  # and the body later
        time.sleep(0.1)
        crowd = [connect() for _ in range(30)]
        with connect() as client:
            assert asked(client, "/", b"word").endswith(b"word")
        assert sum(everything(idle) == b"" for idle in crowd[:28]) == 28
        for client in busy:
            client.sendall(b"late")
            assert whole(client).endswith(b"late")
        for client in busy + crowd:
            client.close()
        assert len(server.server_state.connections) <= LIMITS.connections


def test_where_all_are_busy_a_newcomer_is_told():
    with serving() as (connect, _):
        busy = [connect() for _ in range(4)]
        for client in busy:
            client.sendall(request(length=4))
        time.sleep(0.1)
        with connect() as client:
            assert status_and_text(everything(client)) == (503, "too many connections; try again in a moment")
        for client in busy:
            client.close()


@pytest.mark.parametrize("data", [
    b"\0\1\2\3\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"A" * (1 << 17), request(more="Content-Length: 7\r\n"), b"GET / HTTP/0.3 x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnonsense",
])  # fmt: skip
def test_what_is_no_http_is_told_so(data):
    with serving() as (connect, _), connect() as client:
        client.sendall(data)
        assert status_and_text(everything(client))[0] == 400


def test_nonsense_after_an_answer_ends_the_connection_alone():
    with serving() as (connect, _):
        with connect() as client:
            client.sendall(request("/early", length=100) + b"x" * 100 + b"\0\0\0\r\n\r\n")
            everything(client)
        with connect() as client:
            assert asked(client, "/", b"word").endswith(b"word")


def test_a_client_that_takes_nothing_is_left():
    with serving() as (connect, server), connect() as client:
        client.sendall(request("/large"))
        deadline = time.monotonic() + 8
        time.sleep(0.2)
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.server_state.connections
        assert len(everything(client)) < LARGE


def test_one_that_takes_it_slowly_gets_all():
    with serving() as (connect, _), connect() as client:
        client.sendall(request("/large"))
        found = 0
        while found < LARGE:
            found += len(client.recv(1 << 20))
            time.sleep(0.06)  # in all more than the limit


@pytest.mark.parametrize(("headers", "status"), [
    ({"host": "127.0.0.1:8000"}, 200), ({"host": "LOCALHOST"}, 200), ({"host": "[::1]:99"}, 200), ({}, 421),
    ({"host": "evil.example:8000"}, 421), ({"host": "127.0.0.1.evil.example"}, 421), ({"host": "a@127.0.0.1"}, 421),
    ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, 200),
    ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:3000"}, 403),
    ({"host": "127.0.0.1:8000", "origin": "https://evil.example"}, 403),
    ({"host": "127.0.0.1:8000", "origin": "null"}, 403),
])  # fmt: skip
def test_only_our_own_names_and_pages_get_an_answer(headers, status):
    sent = guarded(Guard(echo, LIMITS, LOOPBACK), headers, b"word")
    assert sent[0]["status"] == status
    assert (b"x-frame-options", b"DENY") in sent[0]["headers"]
    assert sent[1]["body"] == b"word" if status == 200 else "\n" not in json.loads(sent[1]["body"])["detail"]


def guarded(guard, headers, body):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"",
             "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    return sent


def test_bodies_together_are_bounded_and_let_go():
    guard = Guard(echo, replace(LIMITS, held_bytes=10), None)
    for body, status in ((b"x" * 10, 200), (b"x" * 11, 429), (b"x" * 10, 200)):
        assert guarded(guard, {"host": "any.example"}, body)[0]["status"] == status
    guard.held = 1
    assert guarded(guard, {}, b"x" * 10)[0]["status"] == 429 and guard.held == 1


def test_a_page_of_earlier_is_there_before_the_models():
    gate = threading.Event()
    pages = {"a": b"<p>first", "b": b"<p>other", "c": None}
    with serving(pages=pages, load=lambda: gate.wait(10) and echo) as (connect, _):
        for query, page in (("", b"<p>first"), ("?model=b", b"<p>other")):
            with connect() as client:
                client.sendall(f"GET /{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert whole(client).endswith(page)
        with connect() as client:
            client.sendall(request("/v1/models", b"word"))
            gate.set()
            assert whole(client).endswith(b"word")


def test_where_nothing_can_be_loaded_the_server_ends():
    gate = threading.Event()

    def load():
        gate.wait(10)
        raise SmaltiError("no such folder")

    with serving(load=load) as (connect, server), connect() as client:
        client.sendall(request())
        gate.set()
        assert status_and_text(whole(client)) == (503, "the models could not be loaded")
        assert everything(client) == b"" and str(server.opening.error) == "no such folder"


CHILD = """
import socket, sys, time
from smalti.server.connections import Server
from smalti.server.guard import Guard
from smalti.server.limits import Limits
from smalti.server.opening import Opening
from smalti.server.turns import Turns

turns = Turns(9)

async def application(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await turns.take(lambda: print("begun", flush=True) or time.sleep(0.5))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})

place = socket.socket(socket.AF_UNIX)
place.bind(sys.argv[1])
place.listen()
opening = Opening({}, lambda: application)
print("open", flush=True)
Server(Guard(opening, Limits(end_seconds=5)), opening, turns).run([place])
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_finishes_what_has_begun(ending, tmp_path, monkeypatch):
    root, pipes = Path(__file__).parents[2], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, "socket"], env={**os.environ, "PYTHONPATH": str(root)}, **pipes
    ) as child:
        assert child.stdout.readline() == "open\n"
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in clients:
            client.settimeout(10)
            client.connect("socket")
        begun, waiting, slow, idle = clients
        begun.sendall(request())
        assert child.stdout.readline() == "begun\n"
        waiting.sendall(request())
        slow.sendall(request(length=4))
        time.sleep(0.1)
        child.send_signal(ending)
        assert whole(begun).endswith(b"done")
        assert status_and_text(whole(waiting)) == (503, "the server ends")
        assert everything(slow) == everything(idle) == b""
        assert child.wait(10) == 0 and child.stderr.read() == ""
        for client in clients:
            client.close()
