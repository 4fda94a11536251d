"""Small random models made by the original projects, and what they answer: the other side of `smalti convert`.

Runs in the peers' environment (`make peers`), never in smalti's own; `benchmarks/interop.py` compares. What is not on
PyPI is read from `--sources DIR`; a format whose code is not there is left out, and that is said.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .files import safetensors
from .flax import dalle_mini
from .magvit import ibq, open_magvit2
from .original import ROOT, Original, golden
from .packages import amused, chameleon, diffusers, janus, openai, vqdiffusion
from .sources import cosmos, llamagen, maskgit, mindalle
from .taming import taming, taming_gumbel

MADE = "2026-11-28"
POSITIONS = 64  # pixels of a golden file

FORMATS: dict[str, Callable[[Path | None], Original]] = {
    make.__name__: make
    for make in (
        *(openai, taming, taming_gumbel, diffusers, amused, vqdiffusion, llamagen, ibq, maskgit, janus, chameleon),
        *(mindalle, dalle_mini, cosmos, open_magvit2),
    )
}


def positions(count: int) -> list[int]:
    return sorted(np.random.default_rng(0).choice(count, POSITIONS, replace=False).tolist())


@torch.no_grad()
def golden_file(name: str, original: Original) -> None:
    """Write `tests/golden/interop/NAME.json`, and say what it holds."""
    scales = original.fill()
    images = torch.from_numpy(golden.images())
    codes, margin = original.codes(images), original.margin(images)
    document: dict[str, Any] = {
        "original": original.original,
        "made": MADE,
        "settings": original.settings,
        "scales": scales,
        "tensors": original.file(),
        "codes": codes.tolist(),
        "margin": float(f"{margin.min().item():.3g}"),
        "pixels": None,
    }
    if original.pixels:
        pixels = original.pixels(codes).numpy()
        at = positions(pixels.size)
        values = [float(f"{value:.7g}") for value in pixels.ravel()[at]]
        document["pixels"] = {"shape": list(pixels.shape), "at": at, "values": values}
        print(f"  pixels {pixels.min():.2f} to {pixels.max():.2f}, standard deviation {pixels.std():.2f}")
    path = ROOT / "tests/golden/interop" / f"{name}.json"
    path.write_text(written(document), encoding="utf-8")
    distinct, count = len(codes.unique()), codes.numel()
    print(f"  {count} codes, {distinct} distinct, margin {margin.min():.2g}, {path.stat().st_size} bytes")


CODES, HEIGHT, WIDTH, BATCH = 10_000, 64, 96, 8  # of the comparison


@torch.no_grad()
def compared_files(name: str, original: Original, folder: Path) -> None:
    """Write `FOLDER/NAME/`, the model as it is published, and `FOLDER/NAME.npz`, its answers for 10,000 codes."""
    scales = original.fill()
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    tensors = {own: torch.from_numpy(golden.filled(own, shape, scales)) for own, shape in original.file().items()}
    (original.write or safetensors)(original, tensors, place)
    first = original.codes(torch.from_numpy(golden.images(1, HEIGHT, WIDTH)))
    images = torch.from_numpy(golden.images(-(-CODES // first.numel()), HEIGHT, WIDTH))
    found: dict[str, list[Tensor]] = {"codes": [], "gaps": [], "pixels": [], "lengths": []}
    for batch in images.split(BATCH):
        codes = original.codes(batch)
        found["codes"].append(codes)
        found["gaps"].append(original.margin(batch))
        found["lengths"].append(original.features(batch).square().sum(1))
        if original.pixels:
            found["pixels"].append(original.pixels(codes))
    answers = {key: torch.cat(values).numpy() for key, values in found.items() if values}
    about = {"original": original.original, "tensors": len(tensors), "torch": torch.__version__}
    np.savez(folder / f"{name}.npz", about=np.array(json.dumps(about)), images=images.numpy(), **answers)
    print(f"  {answers['codes'].size:,} codes, in {', '.join(sorted(path.name for path in place.iterdir()))}")


def written(document: dict[str, Any]) -> str:
    """JSON with one line a key, and one a tensor."""
    lines = []
    for key, value in document.items():
        if key == "tensors":
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in value.items())
            lines.append(f'"tensors": {{\n{inner}\n}}')
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", action="store_true", help="write the golden files of the tests")
    parser.add_argument("--out", type=Path, help="write models as they are published, and their answers, here")
    parser.add_argument("--sources", type=Path, help="folder of the sources that are not on PyPI")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name in arguments.formats:
        try:
            original = FORMATS[name](arguments.sources)
        except (ImportError, FileNotFoundError) as error:
            print(f"{name}: left out, {error}")
            continue
        print(f"{name}: {original.original}")
        if arguments.golden:
            golden_file(name, original)
        if arguments.out:
            compared_files(name, original, arguments.out)


if __name__ == "__main__":
    main()
