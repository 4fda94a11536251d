"""The codec on real codes: sizes beside zstd and xz, what safety against noise costs, speed, and other conditions.

    python benchmarks/codec.py --model RUN --prior PRIOR_RUN --data emoji --name emoji

Sizes are of the codes of a whole split. The general compressors get the codes packed in as few bits as fit, and as
16-bit integers, and the better of the two counts. Speed is one thread's; run it pinned and alone.
"""

import argparse
import json
import lzma
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import save
from torch import Tensor

from smalti.codec import Archive, Codec
from smalti.codec.coders import AdaptiveCoder, FixedCoder, HistogramCoder
from smalti.codec.prior_coder import PriorCoder
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.images.pixels import to_float
from smalti.models.autoencoder import Autoencoder
from smalti.priors.code_model import CodeModel

ARCHIVE = 1000
CONDITIONS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "ONEDNN_MAX_CPU_ISA=AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "oneDNN off": {"SMALTI_BENCH_ONEDNN": "off"},
    "no native kernels": {"SMALTI_KERNELS": "off"},
    "batch 1": {"SMALTI_BENCH_SINGLE": "1", "OMP_NUM_THREADS": "1"},
}


def codes_of(model: Autoencoder, data: str, split: str) -> np.ndarray:
    pixels = Pixels(open_data(data, split), model.config.preprocessing, progress=True)
    return torch.cat([model.encode(to_float(batch)) for batch in pixels.in_order(64)]).numpy()


def general(codes: np.ndarray, size: int) -> dict[str, int]:
    """Bytes of zstd and xz at their strongest, on packed codes."""
    bits = max(1, (size - 1).bit_length())
    packed = np.packbits((codes.reshape(-1, 1) >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)).tobytes()
    plain = codes.astype("<u2" if size <= 1 << 16 else "<u4").tobytes()
    sizes = {"xz -9e": min(len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for text in (packed, plain))}
    try:
        import zstandard

        sizes["zstd -22"] = min(len(zstandard.ZstdCompressor(level=22).compress(text)) for text in (packed, plain))
    except ImportError:
        print("zstandard is not installed: left out")
    return sizes


class Timed:
    """A function, and the seconds spent in it."""

    def __init__(self, function):
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments):
        start = time.perf_counter()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.perf_counter() - start


class Wrapped:
    """A stepper whose steps are timed, or whose logits are disturbed."""

    def __init__(self, stepper, clock=None, noise: float = 0.0):
        self.steps, self.noise = stepper.step if clock is None else clock(stepper.step), noise

    def step(self, previous: Tensor | None) -> Tensor:
        logits = self.steps(previous)
        if not self.noise:
            return logits
        return logits.double() * (1 + self.noise * (2 * torch.rand(logits.shape, dtype=torch.float64) - 1))


class Single:
    """As many steppers of one grid each as there are grids."""

    def __init__(self, make, batch: int, condition: Tensor | None):
        self.steppers = [make(1, None if condition is None else condition[:1]) for _ in range(batch)]

    def step(self, previous: Tensor | None) -> Tensor:
        codes = [None] * len(self.steppers) if previous is None else previous.split(1)
        return torch.cat([stepper.step(code) for stepper, code in zip(self.steppers, codes, strict=True)])


def share_of_the_network(coder: PriorCoder, grids: list[np.ndarray]) -> dict[str, float]:
    """How much of the time of encoding and decoding is the network's."""
    prior = coder.prior
    logits, stepper = prior.logits, prior.stepper
    clock = Timed(logits)
    prior.logits = clock
    start = time.perf_counter()
    stream = coder.encode(grids)
    encode_seconds = time.perf_counter() - start
    prior.logits = logits
    clocks = []

    def clocked(step):
        clocks.append(Timed(step))
        return clocks[-1]

    prior.stepper = lambda batch, condition: Wrapped(stepper(batch, condition), clocked)
    start = time.perf_counter()
    coder.decode(stream, [grid.shape for grid in grids])
    decode_seconds = time.perf_counter() - start
    prior.stepper = stepper
    return {
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "encode_network_share": clock.seconds / encode_seconds,
        "decode_network_share": sum(clock.seconds for clock in clocks) / decode_seconds,
    }


def disturbed(coder: PriorCoder, stream: bytes, grids: list[np.ndarray]) -> dict[str, bool]:
    """Whether the codes are the same with noise on every logit of the decoder."""
    stepper, result = coder.prior.stepper, {}
    for noise in (1e-6, 1e-5):
        coder.prior.stepper = lambda batch, condition, noise=noise: Wrapped(stepper(batch, condition), noise=noise)
        found = coder.decode(stream, [grid.shape for grid in grids])
        result[f"noise {noise:g}"] = all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))
    coder.prior.stepper = stepper
    return result


def elsewhere(model: str, prior: str, codes: np.ndarray) -> dict[str, bool]:
    """Whether a file written here decodes to the same codes in other processes, under other conditions."""
    with tempfile.TemporaryDirectory() as folder:
        stream = PriorCoder(CodeModel.from_pretrained(prior)).encode([grid[None] for grid in codes])
        (Path(folder) / "stream").write_bytes(stream)
        np.save(Path(folder) / "codes.npy", codes)
        result = {}
        for name, environment in CONDITIONS.items():
            words = [sys.executable, __file__, "--model", model, "--prior", prior, "--decode", folder]
            run = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
            result[name] = run.returncode == 0
        return result


def decode_here(prior: str, folder: Path) -> int:
    """0 if the codes of `elsewhere` come out."""
    if os.environ.get("SMALTI_BENCH_ONEDNN") == "off":
        torch.backends.mkldnn.enabled = False
    codes, coder = np.load(folder / "codes.npy"), PriorCoder(CodeModel.from_pretrained(prior))
    if os.environ.get("SMALTI_BENCH_SINGLE"):
        stepper = coder.prior.stepper
        coder.prior.stepper = lambda batch, condition: Single(stepper, batch, condition)
    found = coder.decode((folder / "stream").read_bytes(), [(1, *grid.shape) for grid in codes])
    return int(not all(np.array_equal(a, b[0]) for a, b in zip(codes, found, strict=True)))


def speed(codes: np.ndarray, size: int) -> dict[str, float]:
    """Codes per second of the adaptive coder on one thread, the median of 5."""
    grids, coder = [grid[None] for grid in codes], AdaptiveCoder(size)
    rates: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(5):
        start = time.perf_counter()
        stream = coder.encode(grids)
        middle = time.perf_counter()
        found = coder.decode(stream, [grid.shape for grid in grids])
        rates["encode"].append(codes.size / (middle - start))
        rates["decode"].append(codes.size / (time.perf_counter() - middle))
    assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))
    return {f"{name}_codes_per_second": sorted(values)[2] for name, values in rates.items()}


def container(model: str, prior: str, data: str, bits: np.ndarray) -> dict[str, float]:
    """An archive of the first 1,000 images and a file of one, beside the prior's own bits."""
    codec = Codec(Autoencoder.from_pretrained(model), CodeModel.from_pretrained(prior))
    pixels = Pixels(open_data(data, "test"), codec.model.config.preprocessing)
    count = min(ARCHIVE, len(pixels))
    images = list(pixels.gather(range(count)))
    archive, single = codec.compress(images), codec.compress(images[0])
    own = float(bits[:count].sum()) / 8
    with tempfile.NamedTemporaryFile(suffix=".smalti") as file:
        file.write(single)
        file.flush()
        with Archive.open(file.name) as opened:
            parts = opened.parts()
    return {
        "images": count,
        "archive_bytes": len(archive),
        "own_bytes": own,
        "allowed_bytes": own * 1.005 + 40,
        "archive_over_percent": (len(archive) / own - 1) * 100,
        "single_own_bytes": float(bits[0]) / 8,
        "single_payload_bytes": parts["codes"],
        "single_container_bytes": parts["header"] + parts["checks"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prior", required=True)
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--name", default="emoji")
    parser.add_argument("--decode", help="(used by the benchmark itself)")
    chosen = parser.parse_args()
    if chosen.decode:
        return decode_here(chosen.prior, Path(chosen.decode))
    model, prior = Autoencoder.from_pretrained(chosen.model), CodeModel.from_pretrained(chosen.prior)
    size, codes = model.codes_bottleneck.codebook_size, codes_of(model, chosen.data, "test")
    grids, coder = [grid[None] for grid in codes], PriorCoder(prior)
    with torch.inference_mode():
        parts = torch.from_numpy(codes).split(64)
        bits = torch.cat([prior.prior.nll(part, coder._condition(len(part))) for part in parts]).numpy() / math.log(2)
    batches = [grids[start : start + 128] for start in range(0, len(grids), 128)]
    streams = [coder.encode(batch) for batch in batches]
    adaptive = AdaptiveCoder(size)
    sizes = {
        "fixed": len(FixedCoder(size).encode(grids)),
        "histogram": len(HistogramCoder(size).encode(grids)),
        **general(codes, size),
        "adaptive": sum(len(adaptive.encode(grids[start : start + 1024])) for start in range(0, len(grids), 1024)),
        "prior": sum(map(len, streams)),
    }
    for name, value in sorted(sizes.items(), key=lambda pair: -pair[1]):
        print(f"{name:>12} {value:9d} bytes  {value * 8 / codes.size:6.3f} bits a code")
    own = float(bits.sum()) / 8
    print(f"the prior's own bits: {own:.0f} bytes; written {100 * (sizes['prior'] / own - 1):.3f} % more")
    timed = len(batches[0])
    result = {
        "workload": chosen.name,
        "grids": list(codes.shape),
        "codebook_size": size,
        "bytes": sizes,
        "prior_own_bytes": own,
        "over_percent": 100 * (sizes["prior"] / own - 1),
        **disturbed(coder, streams[0], batches[0]),
        **elsewhere(chosen.model, chosen.prior, codes[:timed]),
        **share_of_the_network(coder, batches[0]),
        **container(chosen.model, chosen.prior, chosen.data, bits),
    }
    torch.set_num_threads(1)
    repeated = np.concatenate([codes] * math.ceil(1e6 / codes.size))
    result |= speed(codes, size) | {f"million_{name}": value for name, value in speed(repeated, size).items()}
    print(json.dumps(result, indent=2))
    save([result], Path(__file__).parent / "results" / f"codec_{chosen.name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
