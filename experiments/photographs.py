"""Perceptual distance and sharpness of reconstructions, which PSNR does not measure; and a contact sheet.

    python experiments/photographs.py DATA RUN RUN ... --out photographs.png

Sharpness is the energy of differences between neighbouring pixels, as a share of the originals'.
"""

import argparse

import torch
from PIL import Image
from torch import Tensor

from smalti.data.batches import some_images
from smalti.images.reading import to_pil
from smalti.models.autoencoder import Autoencoder
from smalti.models.features import perceptual_distance

IMAGES, SHOWN, SCALE = 1000, 12, 3


def energy(images: Tensor) -> float:
    return float(images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean())


def sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of images, enlarged without smoothing."""
    size = rows[0].shape[-1] * SCALE
    picture = Image.new("RGB", (SHOWN * size, len(rows) * size), "white")
    for top, row in enumerate(rows):
        for left, image in enumerate(to_pil(row[:SHOWN])):
            picture.paste(image.resize((size, size), Image.Resampling.NEAREST), (left * size, top * size))
    return picture


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out", default="photographs.png")
    chosen = parser.parse_args()
    measure = perceptual_distance("effnet").eval()
    rows: list[Tensor] = []
    for run in chosen.runs:
        model = Autoencoder.from_pretrained(run)
        images = some_images(chosen.data, "test", model.config.preprocessing, IMAGES)
        found = torch.cat([model.reconstruct(batch) for batch in images.split(100)])
        distances = [measure(a, b).mean() for a, b in zip(images.split(100), found.split(100), strict=True)]
        sharpness = energy(found) / energy(images)
        print(f"{run}: perceptual distance {float(torch.stack(distances).mean()):.4f}, sharpness {sharpness:.3f}")
        rows += [found] if rows else [images, found]
    sheet(rows).save(chosen.out)
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
