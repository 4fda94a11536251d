"""`smalti serve` under 16 clients on loopback: times, throughput, growth of its memory; every answer is compared.

    make bench-server
    python benchmarks/server.py --run runs/dvae --minutes 5 --clients 16

A client asks for encode, decode and reconstruct in turn, of pictures of several sizes, on a connection that it keeps.
What the server answers must be what the model gives of the same picture alone, bit for bit.
"""

import argparse
import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from common import save
from PIL import Image

from smalti.images.reading import to_pil
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import dvae
from smalti.training.loop import train

SIZES = ((32, 32), (48, 80), (96, 96), (128, 192))
PICTURES = 12
WARM_SECONDS = 3.0
Times = dict[str, list[float]]  # seconds of each request, by what was asked
Asked = tuple[str, bytes, bytes]  # what, the body, the right answer


def picture(seed: int) -> Image.Image:
    """A smooth one of many colours."""
    height, width = SIZES[seed % len(SIZES)]
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def asked(model: Autoencoder) -> list[Asked]:
    """Requests with the answers that the model gives, one at a time."""
    found: list[Asked] = []
    for seed in range(PICTURES):
        image = picture(seed)
        size, codes = (image.height, image.width), model.encode(image)
        again = png(to_pil(model.decode(codes, size))[0])
        about = {"codes": codes[0].tolist(), "size": list(size), "model_hash": model.source_hash}
        found += [
            ("encode", png(image), json.dumps(about).encode()),
            ("decode", json.dumps({"codes": about["codes"], "size": about["size"]}).encode(), again),
            ("reconstruct", png(image), again),
        ]
    return found


def client(place: str, requests: list[Asked], first: int, end: float, times: Times, wrong: list[str]):
    """Ask until the end, beginning with the `first` request."""
    connection, number = http.client.HTTPConnection(place, timeout=120), first
    while time.monotonic() < end:
        what, body, right = requests[number % len(requests)]
        start = time.monotonic()
        connection.request("POST", f"/v1/{what}", body)
        answer = connection.getresponse()
        data = answer.read()
        times[what].append(time.monotonic() - start)
        same = json.loads(data) == json.loads(right) if what == "encode" and answer.status == 200 else data == right
        if answer.status != 200 or not same:
            wrong.append(f"{what}: {answer.status} {data[:100]!r}")
        number += 1
    connection.close()


def measure(place: str, requests: list[Asked], clients: int, seconds: float) -> tuple[Times, list[str]]:
    times: Times = defaultdict(list)
    wrong: list[str] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=client, args=(place, requests, 7 * number, end, times, wrong))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, wrong


def resident_mb(process: int) -> float:
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def in_ms(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[-1 - len(ordered) // 100], 1),
    }


@contextmanager
def serving(run: Path) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, float]]]:
    """A server, where it listens, and the seconds from its start to the page and to the first answer of a model."""
    command, start = [sys.executable, "-m", "smalti", "serve", str(run), "--port", "0"], time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline().split()
            place, begun = urlsplit(next(word for word in said if word.startswith("http"))).netloc, {}
            for name, path in (("seconds_to_the_page", "/"), ("seconds_to_the_models", "/v1/models")):
                connection = http.client.HTTPConnection(place, timeout=600)
                connection.request("GET", path)
                connection.getresponse().read()
                connection.close()
                begun[name] = round(time.monotonic() - start, 2)
            yield server, place, begun
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a tokenizer; by default the emoji dVAE's networks after two steps")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "server.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run
        if run is None:
            run = Path(folder) / "dvae"
            train(dvae(data="emoji").with_settings(steps=2, batch_size=8), run, progress=False)
        model = Autoencoder.from_pretrained(run)
        requests = asked(model)
        with serving(run):
            pass  # which makes the page, once
        with serving(run) as (server, place, begun):
            _, wrong = measure(place, requests, options.clients, WARM_SECONDS)
            before, start = resident_mb(server.pid), time.monotonic()
            times, more = measure(place, requests, options.clients, 60 * options.minutes)
            seconds, after = time.monotonic() - start, resident_mb(server.pid)
            server.send_signal(signal.SIGTERM)
            status = server.wait(60)
    count = sum(map(len, times.values()))
    result: dict[str, Any] = {
        "workload": f"{options.clients} clients, {options.minutes:g} minutes",
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        "requests": count,
        "requests_per_second": round(count / seconds, 1),
        "wrong": len(wrong) + len(more),
        "grown_mb": round(after - before, 1),
        "resident_mb": round(after, 1),
        "exit_status": status,
        **begun,
        "load": round(os.getloadavg()[0], 1),
        "acts": {what: {"requests": len(own), **in_ms(own)} for what, own in sorted(times.items())},
        "all": in_ms([own for each in times.values() for own in each]),
    }
    print(json.dumps(result, indent=1), *(wrong + more)[:5], sep="\n")
    save([result], options.out)


if __name__ == "__main__":
    main()
