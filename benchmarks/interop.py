"""Converted models beside the originals: their codes and pixels, and the speed of VQGAN f16 at full size.

    make interop SOURCES=DIR          # the originals write files and answers, which are converted and compared
    make bench-interop                # speed, beside taming's code, in one process

What the originals do is in `originals.py`.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from common import compare, save
from torch import Tensor

from smalti.interop.convert import Converted, converted
from smalti.interop.formats import FORMATS
from smalti.interop.weights import Weights, read_weights
from smalti.ops.precision import arithmetic, processor_has_bf16

RESULTS = Path(__file__).parent / "results"
TIE = 1e-6  # of the scale of the scores: nearer than this, rounding chooses the code
BATCH = 8
HEIGHT, WIDTH = 512, 768
Precision = Literal["fp32", "bf16"]


# ------------------------------------------------------------------ equality


def differences(folder: Path, name: str) -> dict[str, Any]:
    """Convert `folder/name/` and compare it with the original's answers in `folder/name.npz`."""
    found = converted(read_weights(str(folder / name)))
    with np.load(folder / f"{name}.npz") as file:
        answers = {key: file[key] for key in file.files}
    about = json.loads(str(answers["about"]))
    images, expected = torch.from_numpy(answers["images"]), torch.from_numpy(answers["codes"])
    codes = torch.cat([found.model.encode(batch) for batch in images.split(BATCH)])
    differ = (codes != expected).numpy()
    tie = answers["gaps"] <= TIE * max(1.0, float(answers["lengths"].mean()))
    (format,) = (key for key, own in FORMATS.items() if own is found.format)
    return {
        "workload": name,
        "format": format,
        "original": about["original"],
        "codes": codes.numel(),
        "distinct": len(expected.unique()),
        "different": int((differ & ~tie).sum()),
        "ties": int((differ & tie).sum()),
        "pixels": largest_difference(found, images, expected, answers.get("pixels")),
        "tensors": found.used,
        "left_out": sum(found.left_out.values()),
        "of_tensors": about["tensors"],
        "torch": [about["torch"], torch.__version__],
    }


def largest_difference(found: Converted, images: Tensor, codes: Tensor, pixels: np.ndarray | None) -> float | None:
    """Of the same codes decoded, both clamped to [0, 1]; None without a decoder."""
    if pixels is None:
        return None
    size, expected = (images.shape[2], images.shape[3]), torch.from_numpy(pixels).clamp(0, 1)
    batches = zip(codes.split(BATCH), expected.split(BATCH), strict=True)
    return max((found.model.decode(own, size) - theirs).abs().max().item() for own, theirs in batches)


def all_differences(folder: Path) -> list[dict[str, Any]]:
    results = []
    for path in sorted(folder.glob("*.npz")):
        result = differences(folder, path.stem)
        results.append(result)
        told = "no decoder" if result["pixels"] is None else f"pixels within {result['pixels']:.1e}"
        print(
            f"{result['workload']:<14} {result['different']} of {result['codes']:,} codes differ, and {result['ties']} "
            f"ties; {told}; {result['tensors']} of {result['of_tensors']} tensors used, {result['left_out']} left out"
        )
    return results


# ------------------------------------------------------------------ speed


def both(width: int, sides: tuple[str, ...] = ("smalti", "taming")) -> dict[str, Any]:
    """VQGAN f16, K = 16,384, with the same random weights in taming's code and converted; the parts asked for."""
    import originals

    original = originals.taming_f16(width)
    if sides == ("taming",):
        return {"taming": original}
    state = {f"state_dict.{name}": tensor for name, tensor in original.network.state_dict().items()}
    return {"smalti": converted(Weights(Path("taming"), state, original.settings)).model, "taming": original}


def verbs(sides: dict[str, Any], image: Tensor, codes: Tensor) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """What is timed, by verb and side."""
    size, calls = (image.shape[2], image.shape[3]), {"encode": {}, "decode": {}}
    if (own := sides.get("smalti")) is not None:
        calls["encode"]["smalti"] = lambda: own.encode(image)
        calls["decode"]["smalti"] = lambda: own.decode(codes, size)
    original = sides["taming"]
    calls["encode"]["taming"] = lambda: original.codes(image)
    calls["decode"]["taming"] = lambda: original.pixels(codes)
    return calls


@torch.no_grad()
def check_equal(calls: dict[str, dict[str, Callable[[], Tensor]]]) -> dict[str, float]:
    """How far the two are from each other in float32.

    Raises:
        SystemExit: they do not do the same.
    """
    found = {verb: [call() for call in own.values()] for verb, own in calls.items()}
    codes = (found["encode"][0] != found["encode"][1]).float().mean().item()
    pixels = (found["decode"][0] - found["decode"][1].clamp(0, 1)).abs().max().item()
    if codes > 1e-3 or pixels > 1e-4:
        raise SystemExit(f"outputs differ: {codes:.2%} of the codes, pixels by {pixels:.1e}")
    return {"codes_that_differ": codes, "pixels": pixels}


def timed(call: Callable[[], Tensor], precision: Precision) -> Callable[[], float]:
    """Images a second."""

    @torch.no_grad()
    def run() -> float:
        start = time.perf_counter()
        with arithmetic(precision, "cpu"):
            call()
        return 1 / (time.perf_counter() - start)

    return run


def speeds(width: int, height: int, image_width: int, rounds: int) -> list[dict[str, Any]]:
    """Encoding and decoding one image, in float32 and, where the processor has it, in bfloat16."""
    image = torch.from_numpy(np.random.default_rng(0).random((1, 3, height, image_width), np.float32))
    codes = torch.randint(16384, (1, height // 16, image_width // 16), generator=torch.Generator().manual_seed(0))
    calls = verbs(both(width), image, codes)
    equal, results = check_equal(calls), []
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if processor_has_bf16() else ("fp32",)
    for verb, own in calls.items():
        sides = {f"{side}, {kind}": timed(call, kind) for side, call in own.items() for kind in precisions}
        name = f"VQGAN f16, K 16384, width {width}: {verb} {image_width} x {height}"
        parts = {"bf16 over fp32": ("smalti, bf16", "smalti, fp32")} if len(precisions) > 1 else {}
        result = compare(name, sides, "smalti, fp32", rounds, "images/s", parts)
        result["seconds"] = {side: round(1 / rate, 3) for side, rate in result["rates"].items()}
        result["peak_mb"] = {
            f"{side}, {kind}": peak(side, verb, kind, width, height, image_width) for side in own for kind in precisions
        }
        print(f"  peak memory, MB: {result['peak_mb']}; equal: {equal}", flush=True)
        results.append({**result, "equal": equal})
    return results


def peak(*options: object) -> int:
    """Megabytes that a process needs at most for one call, the weights among them."""
    words = ["--peak", *map(str, options)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr}")
    return int(done.stdout.split()[-1])


def print_peak(side: str, verb: str, kind: Precision, width: int, height: int, image_width: int) -> None:
    image = torch.zeros(1, 3, height, image_width)
    codes = torch.zeros(1, height // 16, image_width // 16, dtype=torch.long)
    sides = both(width, (side,))
    call = verbs(sides, image, codes)[verb][side]
    with torch.no_grad(), arithmetic(kind, "cpu"):
        call()
    with open("/proc/self/status", encoding="ascii") as file:
        match = re.search(r"VmHWM:\s*(\d+)", file.read())
    assert match
    print(int(match[1]) // 1024)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="what `originals.py --out` wrote: compare with it")
    parser.add_argument("--speed", action="store_true", help="beside taming's code, in the peers' environment")
    parser.add_argument("--size", type=int, nargs=3, default=(128, HEIGHT, WIDTH), metavar=("WIDTH", "H", "W"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "interop.json")
    parser.add_argument("--peak", nargs=6, help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.peak:
        side, verb, kind, *size = chosen.peak
        return print_peak(side, verb, kind, *map(int, size))
    results = all_differences(chosen.files) if chosen.files else []
    results += speeds(*chosen.size, chosen.rounds) if chosen.speed else []
    if not results:
        parser.error("name --files or --speed")
    save(results, chosen.out)


if __name__ == "__main__":
    main()
