"""Hostile requests to a server in a process of its own: each gets a 4xx with one line, and the server lives.

    python -m tests.fuzz.requests [COUNT]       500 by default; request number N depends on N alone

A request is bytes on a socket: bombs, paths, codes out of range, bodies that are cut off or drip, random bytes, JSON
with evil values, damaged images, odd heads, chunked nonsense. Then comes a crowd of up to 10,000 connections, as many
as this machine lets a process have, and a crowd where the server may hardly open a file. At the end it has not grown by
more than 1 GB, has printed nothing, has made no file and read none of those that lie around, and ends with 0 when it is
told.
"""

import collections
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np
import torch
from PIL import Image

from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig

from ..conftest import draw_image
from .evil import VALUES, as_json, changed_value
from .harness import changed_bytes

COUNT, CROWD, SECONDS, MEGABYTES = 500, 10_000, 30.0, 1024
SECRET = "what nobody may read"
REFUSED, TAKEN, CLOSED = "refused", "taken", "closed"  # a 4xx with one line; a 200; no answer


class Hostile(NamedTuple):
    """Bytes to send, and what may become of them."""

    data: bytes
    fates: tuple[str, ...] = (REFUSED,)
    cut: bool = False  # nothing more comes
    drips: bool = False  # byte by byte, until patience ends


def head(act: str, length: object, *more: str, method: str = "POST", host: str = "127.0.0.1") -> bytes:
    lines = [f"{method} {act} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"Content-Length: {length}"] if length is not None else []
    return ("\r\n".join([*lines, *more]) + "\r\n\r\n").encode("latin-1")


def post(act: str, body: bytes, *more: str) -> bytes:
    return head(f"/v1/{act}", len(body), *more) + body


def picture(kind: str, seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_image(seed, (24, 36))).save(file, kind)
    return file.getvalue()


PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")}
CODES = {"codes": [[0, 1, 2], [3, 4, 5]], "size": [8, 12]}
ACTS = ("encode", "decode", "reconstruct")
NAMES = (
    "../../secret",
    "/etc/passwd",
    "secret",
    "run/../secret",
    "%2e%2e%2fsecret",
    "\0",
    "run\0",
    "a" * 5000,
    "é",
    "'",
    "*",
)


def bomb(rng: np.random.Generator) -> Hostile:
    kind = str(rng.choice(["PNG", "BMP", "GIF"]))
    data, side = bytearray(PICTURES[kind]), int(rng.choice([5000, 20000, 60000]))
    place, size, order = {"PNG": (16, 4, "big"), "BMP": (18, 4, "little"), "GIF": (6, 2, "little")}[kind]
    data[place : place + 2 * size] = side.to_bytes(size, order) * 2
    return Hostile(post(str(rng.choice(["encode", "reconstruct"])), bytes(data)))


def path(rng: np.random.Generator) -> Hostile:
    name = str(rng.choice(NAMES))
    act = [f"/v1/encode?model={quote(name)}", f"/{quote(name)}", f"/v1/{quote(name)}", f"/?model={quote(name)}",
           f"//{quote(name, safe='')}"][rng.integers(5)]  # fmt: skip
    return Hostile(head(act, 0, method="POST" if "encode" in act else "GET"))


def wrong_codes(rng: np.random.Generator) -> Hostile:
    evil = VALUES[rng.integers(len(VALUES))]
    values = (
        {"codes": evil}, {"codes": [[evil]]}, {"codes": [[0, -1]]}, {"codes": [[2**40]]}, {"codes": [[1] * 9000] * 90},
        {"codes": [[1]], "size": evil}, {"codes": [[1]], "size": [9, 9]}, {"codes": [1]}, [], evil,
    )  # fmt: skip
    return Hostile(post("decode", json.dumps(values[rng.integers(len(values))]).encode()), (REFUSED, TAKEN))


def changed_json(rng: np.random.Generator) -> Hostile:
    return Hostile(post("decode", as_json(changed_value(CODES, rng), rng)), (REFUSED, TAKEN))


def changed_image(rng: np.random.Generator) -> Hostile:
    data = changed_bytes(PICTURES[str(rng.choice([*PICTURES]))], rng)
    return Hostile(post(str(rng.choice(ACTS)), data), (REFUSED, TAKEN))


def random_bytes(rng: np.random.Generator) -> Hostile:
    data = rng.bytes(int(rng.integers(1, 3000)))
    if rng.random() < 0.5:
        return Hostile(post(str(rng.choice(ACTS)), data))
    return Hostile(data + b"\r\n\r\n", cut=True)


def cut_off(rng: np.random.Generator) -> Hostile:
    whole = post(str(rng.choice(ACTS)), PICTURES["PNG"])
    return Hostile(whole[: int(rng.integers(1, len(whole)))], (REFUSED, CLOSED), cut=True)


def drips(rng: np.random.Generator) -> Hostile:
    whole = post("encode", PICTURES["PNG"])
    return Hostile(whole, (REFUSED, TAKEN, CLOSED), drips=True)


def long(rng: np.random.Generator) -> Hostile:
    length = rng.choice(["99999999999", "-5", "1e3", "16777217", "0x10", "9" * 400, "", " ", "²"])
    return Hostile(head("/v1/encode", length), cut=True)


def odd_head(rng: np.random.Generator) -> Hostile:
    body = PICTURES["PNG"]
    return [
        Hostile(head("/v1/encode", len(body), host="evil.example") + body),
        Hostile(head("/v1/encode", len(body), "Origin: https://evil.example") + body),
        Hostile(head("/v1/encode", len(body), "Origin: null") + body),
        Hostile(head("/v1/encode", len(body), "X: " + "y" * 100_000) + body, (REFUSED, TAKEN)),  # as it comes
        Hostile(head("/v1/encode", len(body), *(f"X-{n}: y" for n in range(9000))) + body, (REFUSED, TAKEN)),
        Hostile(head("/v1/encode", len(body), f"Content-Length: {len(body) + 1}") + body),
        Hostile(head("/v1/encode", len(body), "Bad Name: x") + body),
        Hostile(head("/v1/encode", len(body), "X: \x00") + body),
        Hostile(head("/v1/encode", None, method="DELETE")),
        Hostile(head("/v1/encode", None, method="CONNECT")),
        Hostile(head("/v1/encode", None, method="GET")),
        Hostile(head("/v1/encode", None, "Upgrade: websocket", "Connection: upgrade", method="GET")),
        Hostile(head("http://169.254.169.254/latest", None, method="GET")),
        Hostile(head("*", None, method="OPTIONS")),
        Hostile(b"GET /health HTTP/1.1\r\n\r\n"),
        Hostile(b"GET /health\r\n\r\n"),
        Hostile(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Hostile(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.bytes(500)),
    ][rng.integers(18)]


def chunked(rng: np.random.Generator) -> Hostile:
    chunks = [b"zz\r\nword\r\n", b"-4\r\nword\r\n", b"4\r\nwordy\r\n", b"f" * 40 + b"\r\n", b"4;" + b"x" * 90_000,
              b"\0\0\0\r\n", b"5\r\nGIF89\r\n0\r\n\r\n"]  # fmt: skip
    start = head("/v1/encode", None, "Transfer-Encoding: " + str(rng.choice(["chunked", "chunked, gzip", "gzip"])))
    return Hostile(start + chunks[rng.integers(len(chunks))], cut=True)


def several(rng: np.random.Generator) -> Hostile:
    one = post("decode", b"{").replace(b"Connection: close\r\n", b"")
    return Hostile(one * int(rng.integers(2, 60)) + b"\0\r\n\r\n")


KINDS: tuple[Callable[[np.random.Generator], Hostile], ...] = (
    bomb, path, wrong_codes, changed_json, changed_image, random_bytes, cut_off, drips, long, odd_head, chunked, several
)  # fmt: skip


def fate(address: tuple[str, int], hostile: Hostile) -> str:
    """What became of it; a fault begins with FAULT."""
    answer, started = b"", time.monotonic()
    with socket.create_connection(address, timeout=SECONDS) as client:
        try:
            if hostile.drips:
                for byte in hostile.data[:40]:
                    client.sendall(bytes([byte]))
                    time.sleep(0.005)
                client.shutdown(socket.SHUT_WR)
            else:
                client.sendall(hostile.data)
                if hostile.cut:
                    client.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # it has heard enough
        try:
            while data := client.recv(1 << 16):
                answer += data
        except ConnectionError:
            pass
        except TimeoutError:
            return "FAULT: no end"
    became = _fate_of(answer)
    if time.monotonic() - started > SECONDS / 2:
        return f"FAULT: {time.monotonic() - started:.0f} s, then {became}"
    return became if became in hostile.fates or became.startswith("FAULT") else f"FAULT: {became}"


def _fate_of(answer: bytes) -> str:
    if SECRET.encode() in answer or b"root:" in answer:
        return "FAULT: a file is in the answer"
    if not answer:
        return CLOSED
    top, _, body = answer.partition(b"\r\n\r\n")
    status = int(top.split()[1])
    if status == 200:
        return TAKEN
    length = int(top.lower().partition(b"content-length:")[2].split()[0])
    text = json.loads(body[:length] or b"{}").get("detail")
    if not 400 <= status < 500 or not isinstance(text, str) or "\n" in text or len(text) > 300:
        return f"FAULT: {answer[:300]!r}"
    return REFUSED


# ------------------------------------------------------------------ the server


class Child(NamedTuple):
    """A server in its process."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    folder: Path

    def numbers(self) -> Mapping[str, float]:
        """The most memory so far, in MB; open files; seconds of the processor."""
        place = Path(f"/proc/{self.process.pid}")
        memory = dict(line.split(":") for line in (place / "status").read_text().splitlines() if ":" in line)
        ticks = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
        return {
            "peak_mb": int(memory["VmHWM"].split()[0]) / 1024,
            "files": len(list((place / "fd").iterdir())),
            "seconds": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        }

    def healthy(self) -> bool:
        """Whether it answers, and computes."""
        answers = []
        for data in (head("/health", None, method="GET"), post("encode", PICTURES["PNG"])):
            with socket.create_connection(self.address, timeout=SECONDS) as client:
                client.sendall(data)
                answers.append(client.recv(1 << 16).split()[1:2])
        return answers == [[b"200"], [b"200"]]


@contextmanager
def serving(folder: Path, *flags: str):
    """`smalti serve` of a small model, on loopback, in a folder that has a file which nobody may read."""
    networks = {"kind": "strided", "stride": 4, "width": 8, "depth": 0, "residual_channels": 4}
    bottleneck = {"kind": "vector_quantizer", "codebook_size": 24, "code_dim": 4, "start": "random"}
    torch.manual_seed(0)
    config = AutoencoderConfig(networks=networks, bottleneck=bottleneck, preprocessing=Preprocessing(image_size=16))
    Autoencoder(config).save_pretrained(folder / "run")
    (folder / "secret").write_text(SECRET)
    os.utime(folder / "secret", (1, 2))  # reading it would change the first
    command = [sys.executable, "-m", "smalti", "serve", "run", "--port", "0", "--no_page", *flags]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            place = urlsplit(next(word for word in process.stderr.readline().split() if word.startswith("http")))
            yield Child(process, (str(place.hostname), int(place.port or 0)), folder)
        finally:
            process.kill()


def crowd(child: Child, most: int) -> list[str]:
    """Open many connections that ask for nothing; faults."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients, faults = [], []
    try:
        for _ in range(min(most, hard - 200)):
            clients.append(socket.create_connection(child.address, timeout=SECONDS))
        if not child.healthy():
            faults.append(f"FAULT: no answer beside {len(clients):,} connections")
        before = child.numbers()["seconds"]
        time.sleep(2)
        if child.numbers()["seconds"] - before > 0.5:
            faults.append("FAULT: it is busy with connections that ask for nothing")
    except OSError as error:
        faults.append(f"FAULT: after {len(clients):,} connections {error}")
    finally:
        for client in clients:
            client.close()
    return faults or [f"{len(clients):,} connections, and an answer beside them"]


def without_files(child: Child) -> list[str]:
    """The crowd again, where the server can hardly open a file."""
    time.sleep(2)  # until it has let go of the last one
    files = int(child.numbers()["files"]) + 12
    resource.prlimit(child.process.pid, resource.RLIMIT_NOFILE, (files, files))
    return [became.replace("connections", f"connections with {files} files") for became in crowd(child, 60)]


def ended(child: Child, before: Mapping[str, float]) -> list[str]:
    """What is wrong at the end."""
    after, faults = child.numbers(), []
    if after["peak_mb"] - before["peak_mb"] > MEGABYTES:
        faults.append(f"FAULT: {after['peak_mb'] - before['peak_mb']:,.0f} MB more")
    found = sorted(path.name for path in child.folder.rglob("*"))
    if found != ["config.json", "model.safetensors", "run", "secret"]:
        faults.append(f"FAULT: files {found}")
    if (child.folder / "secret").stat().st_atime != 1:
        faults.append("FAULT: a file was read")
    child.process.send_signal(signal.SIGTERM)
    status = child.process.wait(SECONDS)
    said = child.process.stderr.read() if child.process.stderr else ""
    lines = [line for line in said.splitlines() if "out of system resource" not in line]
    if status or lines or len(said) > 500:
        faults.append(f"FAULT: it ended with {status} and said {said[-2000:]!r}")
    return faults or [f"at most {after['peak_mb'] - before['peak_mb']:,.0f} MB more, and a clean end"]


def main(arguments: list[str]) -> int:
    """Print what became of the requests; exit status 1: a fault."""
    count = int(arguments[0]) if arguments else COUNT
    became: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as child:
        assert child.healthy()
        before = child.numbers()
        for number in range(count):
            rng = np.random.default_rng(number)
            kind = KINDS[number % len(KINDS)]
            what = fate(child.address, kind(rng))
            became[f"{kind.__name__}: {what}" + (f" (request {number})" if "FAULT" in what else "")] += 1
        became["healthy" if child.healthy() else "FAULT: no answer any more"] += 1
        became.update([*crowd(child, CROWD), *without_files(child), *ended(child, before)])
    for what, times in sorted(became.items()):
        print(f"{times:9,d}  {what}")
    return int(any("FAULT" in what for what in became))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
