"""Bits per pixel against PSNR: our files beside JPEG, WebP and AVIF, on single images.

    python benchmarks/rate_distortion.py --models RUN RUN ... --data emoji --name emoji64

Every codec's whole file counts, headers included; each image is a file of its own. Ours use the adaptive coder; with
--archive all images also go into one file. Residual quantizers are measured at every depth. Draws results/rd_NAME.svg.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from common import save
from PIL import Image
from tqdm import tqdm

from smalti.codec import Codec, rivals
from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.images.folders import find_images
from smalti.images.preprocessing import Preprocessing
from smalti.images.reading import read_image
from smalti.models.autoencoder import Autoencoder
from smalti.reports.charts import COLOURS, figure

QUALITIES = {
    "JPEG": (1, 3, 5, 10, 20, 40, 60, 80, 95),
    "WebP": (0, 2, 5, 10, 20, 40, 60, 80, 95),
    "AVIF": (1, 5, 10, 20, 30, 50, 70, 85),
}


def psnr(before: np.ndarray, after: np.ndarray) -> float:
    error = np.mean((before.astype(float) - after.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def point(images: list[np.ndarray], code: Callable[[np.ndarray], tuple[int, np.ndarray]]) -> dict[str, float]:
    """Mean bits per pixel and mean PSNR over the images."""
    bits, quality, pixels = 0, [], 0
    for image in images:
        size, found = code(image)
        bits, pixels = bits + 8 * size, pixels + image.shape[0] * image.shape[1]
        quality.append(psnr(image, found))
    return {"bits_per_pixel": bits / pixels, "psnr_db": float(np.mean(quality))}


def classic(name: str, quality: int) -> Callable[[np.ndarray], tuple[int, np.ndarray]]:
    def code(image: np.ndarray) -> tuple[int, np.ndarray]:
        file = rivals.written(Image.fromarray(image), name, quality)
        return len(file), np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))

    return code


def ours(codec: Codec) -> Callable[[np.ndarray], tuple[int, np.ndarray]]:
    def code(image: np.ndarray) -> tuple[int, np.ndarray]:
        data = codec.compress(image)
        return len(data), np.asarray(codec.decompress(data)[0])

    return code


def archive(codec: Codec, images: list[np.ndarray]) -> dict[str, float]:
    """All images in one file."""
    data = codec.compress(images)
    quality = [psnr(before, np.asarray(after)) for before, after in zip(images, codec.decompress(data), strict=True)]
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    return {"bits_per_pixel": 8 * len(data) / pixels, "psnr_db": float(np.mean(quality))}


def load(data: str, size: int, most: int) -> list[np.ndarray]:
    if Path(data).is_dir():
        return [read_image(path) for path in find_images(Path(data))[:most]]
    pixels = Pixels(open_data(data, "test"), Preprocessing(image_size=size))
    return list(pixels.gather(np.linspace(0, len(pixels) - 1, min(most, len(pixels))).astype(int)))


def chart(curves: dict[str, list[dict[str, float]]]) -> str:
    def draw(axes) -> None:
        for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
            marker = "-" if name in QUALITIES else "o-"
            places = sorted((point["bits_per_pixel"], point["psnr_db"]) for point in points)
            axes.plot(*zip(*places, strict=True), marker, color=colour, markersize=4, linewidth=1.2, label=name)
        axes.set_xscale("log")
        axes.set_xlabel("bits per pixel, whole files")
        axes.set_ylabel("PSNR, dB")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)

    return figure(draw, 7.2, 4.2)


def measure(curves: dict[str, list[dict[str, float]]], name: str, points: Iterable[dict[str, float]]) -> None:
    curves[name] = list(points)
    for found in curves[name]:
        print(f"{name:<28} {found['bits_per_pixel']:8.4f} bits per pixel  {found['psnr_db']:6.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders of trained models")
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--size", type=int, default=64, help="of the images, where --data is no folder of files")
    parser.add_argument("--most", type=int, default=64, help="images")
    parser.add_argument("--name", default="emoji64")
    parser.add_argument("--archive", action="store_true", help="all images in one file too")
    chosen = parser.parse_args()
    images = load(chosen.data, chosen.size, chosen.most)
    print(f"{len(images)} images, the first {images[0].shape[1]}x{images[0].shape[0]}")
    curves: dict[str, list[dict[str, float]]] = {}
    for name, qualities in QUALITIES.items():
        points = (point(images, classic(name, quality)) for quality in tqdm(qualities, leave=False))
        measure(curves, name, points)
    for folder in chosen.models:
        model = Autoencoder.from_pretrained(folder)
        depths = range(1, model.codes_bottleneck.num_codebooks + 1)
        if model.config.bottleneck["kind"] != "residual_quantizer":
            depths = depths[-1:]
        name = Path(folder).name
        codecs = [Codec(model, depth=depth) for depth in depths]
        measure(curves, name, (point(images, ours(codec)) for codec in codecs))
        if chosen.archive:
            measure(curves, f"{name}, one file", (archive(codec, images) for codec in codecs))
    folder = Path(__file__).parent / "results"
    save([{"workload": chosen.name, "images": len(images), "curves": curves}], folder / f"rd_{chosen.name}.json")
    (folder / f"rd_{chosen.name}.svg").write_text(chart(curves), encoding="utf-8")
    print(json.dumps({name: len(points) for name, points in curves.items()}))


if __name__ == "__main__":
    main()
