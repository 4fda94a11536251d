"""Converted models beside the originals: their codes and pixels, and the speed of VQGAN f16 at full size.

    make interop SOURCES=DIR          # the originals write files and answers, which are converted and compared
    make bench-interop                # speed, beside taming's code, in one process

What the originals do is in `originals/`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
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
from smalti.models.autoencoder import Autoencoder
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


def converted_f16(original: Any) -> Autoencoder:
    """taming's model as ours, with the same weights."""
    tensors = {original.name(name): tensor for name, tensor in original.network.state_dict().items()}
    return converted(Weights(Path("taming"), tensors, original.settings)).model


def verbs(side: Any, image: Tensor, codes: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed, of one side."""
    if isinstance(side, Autoencoder):
        size = (image.shape[2], image.shape[3])
        return {"encode": lambda: side.encode(image), "decode": lambda: side.decode(codes, size)}
    return {"encode": lambda: side.codes(image), "decode": lambda: side.pixels(codes)}


@torch.no_grad()
def check_equal(ours: dict[str, Callable[[], Tensor]], theirs: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """How far the two are from each other in float32.

    Raises:
        SystemExit: they do not do the same.
    """
    codes = (ours["encode"]() != theirs["encode"]()).float().mean().item()
    pixels = (ours["decode"]() - theirs["decode"]().clamp(0, 1)).abs().max().item()
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
    from originals.taming import taming_f16

    image, codes = inputs(height, image_width)
    original = taming_f16(width)
    model = converted_f16(original)
    calls = {"smalti": verbs(model, image, codes), "taming": verbs(original, image, codes)}
    equal, results = check_equal(*calls.values()), []
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if processor_has_bf16() else ("fp32",)
    parts = {"bf16 over fp32": ("smalti, bf16", "smalti, fp32")} if len(precisions) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for verb in ("encode", "decode"):
            cases = [(side, kind) for side in calls for kind in precisions]
            sides = {f"{side}, {kind}": timed(calls[side][verb], kind) for side, kind in cases}
            name = f"VQGAN f16, K 16384, width {width}: {verb} {image_width} x {height}"
            result = compare(name, sides, "smalti, fp32", rounds, "images/s", parts)
            result["seconds"] = {side: round(1 / rate, 3) for side, rate in result["rates"].items()}
            result["peak_mb"] = {
                f"{side}, {kind}": peak(folder if side == "smalti" else width, verb, kind, height, image_width)
                for side, kind in cases
            }
            print(f"  peak memory, MB: {result['peak_mb']}; equal: {equal}", flush=True)
            results.append({**result, "equal": equal})
    return results


def inputs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image of noise, and codes."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, height, width, generator=generator)
    return image, torch.randint(16384, (1, height // 16, width // 16), generator=generator)


def peak(*options: object) -> int:
    """Megabytes that a process needs at most for one call, the weights among them."""
    words = ["--peak", *map(str, options)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr}")
    return int(done.stdout.split()[-1])


def print_peak(model: str, verb: str, kind: Precision, height: int, width: int) -> None:
    """Of the converted model in a folder, or of the original of a width."""
    from originals.taming import taming_f16

    side = taming_f16(int(model)) if model.isdecimal() else Autoencoder.from_pretrained(model)
    with torch.no_grad(), arithmetic(kind, "cpu"):
        verbs(side, *inputs(height, width))[verb]()
    with open("/proc/self/status", encoding="ascii") as file:  # getrusage would know this process's parent too
        match = re.search(r"VmHWM:\s*(\d+)", file.read())
    assert match
    print(int(match[1]) // 1024)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="what `python -m benchmarks.originals --out` wrote: compare with it")
    parser.add_argument("--speed", action="store_true", help="beside taming's code, in the peers' environment")
    parser.add_argument("--size", type=int, nargs=3, default=(128, HEIGHT, WIDTH), metavar=("WIDTH", "H", "W"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "interop.json")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.peak:
        model, verb, kind, *size = chosen.peak
        return print_peak(model, verb, kind, *map(int, size))
    results = all_differences(chosen.files) if chosen.files else []
    results += speeds(*chosen.size, chosen.rounds) if chosen.speed else []
    if not results:
        parser.error("name --files or --speed")
    save(results, chosen.out)


if __name__ == "__main__":
    main()
