"""Batches from a folder of JPEG files: ours, beside Pillow in a DataLoader, and beside decoding alone.

    python benchmarks/data_loading.py

The files are made here: 200 textured pictures of 512x512, wanted at 256x256. Both sides give shuffled uint8 batches of
32 with the same number of workers. Ours decodes at half size by the cosine transform where that leaves enough pixels,
which is not the same as a bicubic resize: the mean difference between the two is printed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from common import compare, save
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smalti.data.batches import Batches, Pixels
from smalti.data.sources import open_data
from smalti.images import jpeg
from smalti.images.preprocessing import Preprocessing

FILES, BATCH, BATCHES = 200, 32, 12


def make_files(folder: Path, side: int) -> list[Path]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    paths = []
    for index in range(FILES):
        waves = [sum(np.sin(rng.normal(0, 40) * x + rng.normal(0, 40) * y) for _ in range(6)) for _ in range(3)]
        picture = 127 + 25 * np.stack(waves, 2) + rng.normal(0, 8, (side, side, 3))
        paths.append(folder / f"{index:04}.jpg")
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


class PillowFiles(Dataset):
    """The usual data set: open, convert, resize, array."""

    def __init__(self, paths: list[Path], size: int):
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.open(self.paths[index]).convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image))


def forever(paths: list[Path], size: int, workers: int) -> Iterator[Tensor]:
    loader = DataLoader(
        PillowFiles(paths, size),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def rate(batches: Iterator[Tensor]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        for batch in islice(batches, BATCHES):
            assert batch.dtype == torch.uint8 and len(batch) == BATCH
        return BATCH * BATCHES / (time.perf_counter() - start)

    return run


def decoding(paths: list[Path], size: int) -> Callable[[], float]:
    """The decoder alone, on one thread, from memory."""
    data = [path.read_bytes() for path in paths]

    def run() -> float:
        start = time.perf_counter()
        for file in data:
            assert jpeg.decode(file, 3, size, 1 << 30) is not None
        return len(data) / (time.perf_counter() - start)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1, help="of both sides")
    parser.add_argument("--out", default="benchmarks/results/data_loading.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if jpeg.simplejpeg is None:
        raise SystemExit("simplejpeg is not installed: pip install 'smalti[data]'")
    results = []
    with tempfile.TemporaryDirectory() as name:
        for side, size in ((512, 256), (256, 256)):
            folder = Path(name) / str(side)
            folder.mkdir()
            paths = make_files(folder, side)
            pixels = Pixels(open_data(folder), Preprocessing(image_size=size), memory_bytes=0)
            theirs = np.stack([PillowFiles(paths, size)[index].numpy() for index in range(16)]).astype(int)
            apart = float(np.abs(pixels.gather(range(16)) - theirs).mean())
            assert apart < 4, apart
            sides = {
                "smalti": rate(Batches(pixels, BATCH, seed=0, workers=arguments.workers).iterate()),
                "Pillow, DataLoader": rate(forever(paths, size, arguments.workers)),
                "Pillow, DataLoader, no workers": rate(forever(paths, size, 0)),
                "simplejpeg alone, one thread": decoding(paths, size),
            }
            result = compare(f"JPEG {side} to {size}", sides, "smalti", arguments.rounds, "images/s")
            result["mean_difference_of_255"] = round(apart, 2)
            results.append(result)
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
