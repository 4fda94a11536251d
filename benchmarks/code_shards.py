"""Images to code shards: the engines beside the bare encoder, the cost of an image part by part, and peak memory.

    python benchmarks/code_shards.py                      # the local engine, and Daft and Ray where they are installed
    python benchmarks/code_shards.py --images 2000 --memory 500 1000

The bare encoder is as many processes of one thread as the engines have workers, each encoding tensors that are in its
memory. Rates are past the start-up: from the moment that every worker has done a unit. Memory is the peak of a whole
command with one worker.
"""

import argparse
import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the smalti beside this file

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch
from common import cpu_times, fma_peak, save, used_by
from PIL import Image

import smalti
from smalti.data.code_shards import CodesOf
from smalti.data.sources import open_stream
from smalti.images.reading import fit, read_pixels
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import dvae, vqvae
from smalti.scale.engines import ENGINES
from smalti.scale.job import tokenize
from smalti.scale.worker import Tokenizer, Work

SHARDS = 24  # of a run of an engine
SPLIT = 512  # images whose parts are timed
ROUNDS = 4
MODELS = {"dvae, 32 px, PNG": (dvae, 32, 32, "PNG"), "vqvae, 256 px, JPEG of 512": (vqvae, 256, 512, "JPEG")}


def picture(number: int, side: int, kind: str) -> bytes:
    """A file of waves and noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side] / side
    waves = [sum(np.sin(rng.normal(0, 20) * x + rng.normal(0, 20) * y) for _ in range(4)) for _ in range(3)]
    pixels = np.clip(127 + 30 * np.stack(waves, 2) + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, kind)
    return held.getvalue()


def write_data(path: Path, count: int, side: int, kind: str) -> Path:
    """A parquet file of images, of which 256 differ."""
    files = [picture(number, side, kind) for number in range(min(count, 256))]
    schema = arrow.schema([("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, count, 256):
            rows = [{"bytes": own, "path": None} for own in files[: count - start]]
            writer.write_table(arrow.table({"image": rows}, schema))
    return path


def bare(run: Path, count: int, workers: int) -> float:
    """Images per second of processes that encode tensors in memory."""
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(workers), spawn.Queue()
    processes = [spawn.Process(target=_bare, args=(str(run), count // workers, barrier, queue)) for _ in range(workers)]
    for process in processes:
        process.start()
    seconds = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return count // workers * workers / max(seconds)


def _bare(run: str, count: int, barrier: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    tokenizer = Tokenizer(run)
    height, width = tokenizer.preprocessing.size
    images = torch.rand(64, 3, height, width)
    tokenizer.own.encode(images)
    barrier.wait()
    start = time.perf_counter()
    for first in range(0, count, 64):
        tokenizer.own.encode(images[: count - first])
    queue.put(time.perf_counter() - start)


def rate_of(engine: str, run: Path, data: Path, count: int, workers: int) -> dict[str, float]:
    """Images per second past the start-up, and the seconds of that."""
    model, stream = Autoencoder.from_pretrained(run), open_stream(str(data))
    codes_of = CodesOf(data=str(data), split="all", fingerprint=stream.fingerprint, tokenizer=str(run),
                       tokenizer_hash=model.source_hash, codebook_size=model.codes_bottleneck.codebook_size,
                       grid=model.grid, codebooks=1, preprocessing=model.config.preprocessing, precision="fp32",
                       rows_per_shard=max(1, count // SHARDS), smalti=smalti.__version__)  # fmt: skip
    times: list[tuple[float, int]] = []

    def watched(*arguments: Any) -> Iterator[Any]:
        for done in ENGINES[engine](*arguments):
            times.append((time.perf_counter(), done.images))
            yield done

    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        work = Work(run=str(run), data=str(data), out=f"{out}/codes", codes_of=codes_of)
        tokenize(work, stream, watched, workers, progress=False)
    begun, counted = times[workers - 1][0], sum(images for _, images in times[workers:])
    return {"rate": counted / (times[-1][0] - begun), "startup_seconds": begun - start}


def parts(run: Path, data: Path, count: int) -> dict[str, float]:
    """Milliseconds of an image on one thread: read, decode, resize, encode, write."""
    torch.set_num_threads(1)
    tokenizer, stream = Tokenizer(str(run)), open_stream(str(data))

    def timed(do: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        found = do()
        return (time.perf_counter() - start) * 1000 / count, found

    read, rows = timed(lambda: parquet.read_table(data, columns=["image"]).slice(0, count)["image"].to_pylist())
    files = [row["bytes"] for row in rows]
    examples = [own for part in stream.parts for own in part.examples(0)][:count]
    assert len(examples) == len(files)
    decode, images = timed(lambda: [read_pixels(file, tokenizer.reading) for file in files])
    resize, fitted = timed(lambda: [fit(image, tokenizer.preprocessing.size) for image in images])
    batches = [np.stack(fitted[first : first + 64]) for first in range(0, count, 64)]
    tokenizer.encode(batches[0])
    encode, codes = timed(lambda: np.concatenate([tokenizer.encode(batch) for batch in batches]))
    table = arrow.table({"key": [str(number) for number in range(count)], "codes": list(codes)})
    with tempfile.TemporaryDirectory() as out:
        write, _ = timed(lambda: parquet.write_table(table, f"{out}/codes.parquet", compression="zstd"))
    found = {"read": read, "decode": decode, "resize": resize, "encode": encode, "write": write}
    return {name: round(value, 4) for name, value in found.items()} | {"bytes_of_codes": round(codes.nbytes / count, 1)}


def peak_mb(run: Path, data: Path, rows: int) -> float:
    """Peak memory of the command with one worker, which is its own process."""
    with tempfile.TemporaryDirectory() as out:
        words = ("tokenize", run, "--data", data, "--out", f"{out}/codes", "--workers", 1, "--rows_per_shard", rows)
        return used_by(*words)["peak_mb"]


def median(values: list[float], digits: int) -> float:
    return round(float(np.median(values)), digits)


def installed(engine: str) -> bool:
    import importlib.util

    return engine == "local" or importlib.util.find_spec(engine) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_000, help="of 32 px; a sixteenth of it of 256 px")
    parser.add_argument("--memory", type=int, nargs=2, default=(2000, 20_000), help="images of 32 px, of two commands")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", default="benchmarks/results/code_shards.json")
    arguments = parser.parse_args()
    results, engines = [], [name for name in ENGINES if installed(name)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (workload, (recipe, size, side, kind)) in enumerate(MODELS.items()):
            run, count = folder / f"run{number}", arguments.images if number == 0 else arguments.images // 16
            Autoencoder(recipe(image_size=size).model).save_pretrained(run)
            data = write_data(folder / f"data{number}.parquet", count, side, kind)
            busy, own = cpu_times()
            start = time.perf_counter()
            rounds: list[dict[str, Any]] = []
            sides: dict[str, Callable[[], dict[str, float]]] = {
                "bare": lambda run=run, count=count: {"rate": bare(run, count, arguments.workers)}
            }
            for engine in engines:
                given = (engine, run, data, count, arguments.workers)
                sides[engine] = lambda given=given: rate_of(*given)
            for turn in range(arguments.rounds):
                order = [*sides][turn % len(sides) :] + [*sides][: turn % len(sides)]
                rounds.append({side: sides[side]() for side in order})
            after, own_after = cpu_times()
            wall = time.perf_counter() - start
            result: dict[str, Any] = {
                "workload": workload,
                "workers": arguments.workers,
                "rounds": arguments.rounds,
                "images": count,
                "peak_gflops": round(fma_peak(), 1),
                "busy_cores": round((after - busy - (own_after - own)) / wall, 2),  # with the workers themselves
                "rates": {side: median([one[side]["rate"] for one in rounds], 1) for side in sides},
                "of_bare": {
                    engine: median([one[engine]["rate"] / one["bare"]["rate"] for one in rounds], 3)
                    for engine in engines
                },
                "startup_seconds": {engine: round(rounds[-1][engine]["startup_seconds"], 1) for engine in engines},
                "ms_of_an_image": parts(run, data, min(SPLIT, count)),
            }
            if number == 0:
                peaks = {}
                for images in arguments.memory:
                    own_data = write_data(folder / f"memory{images}.parquet", images, side, kind)
                    peaks[str(images)] = peak_mb(run, own_data, 1000)
                result["peak_mb"] = peaks
            print(result, flush=True)
            results.append(result)
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
