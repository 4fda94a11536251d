"""How every number of an evaluation answers to seven damages of photographs, at five strengths each.

    python experiments/damages.py 'DIR/photos-*.parquet' --image_size 128 --num 480 --out docs/pictures/damages.png

Blur, JPEG, noise, a pixel checkerboard and 8x8 blocks must make every perceptual number rise, the checkerboard period-2
energy most and the blocks the border ratio; a shift and a colour cast are shown beside them. Writes the picture and
damages.json beside it.
"""

import argparse
import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from smalti.apps.process import keep_freed_memory
from smalti.data.batches import some_images
from smalti.evaluation import artefacts
from smalti.evaluation.perception import Observer, open_networks
from smalti.evaluation.spread import PerImage
from smalti.files import write_json
from smalti.images.fidelity import mse, psnr_db
from smalti.images.preprocessing import Preprocessing, Reading
from smalti.images.reading import to_images, to_pil

CELL = 8
SET, PAIR = ("fd_effnet", "kid_effnet"), ("effnet_lpips",)
ARTEFACTS = ("border_ratio", "period2_energy", "sharpness")


def blur(images: Tensor, deviation: float) -> Tensor:
    reach = int(4 * deviation) + 1
    weights = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * deviation**2))
    kernel = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    across = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


def jpeg(images: Tensor, quality: float) -> Tensor:
    damaged = []
    for picture in to_pil(images):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(quality))
        damaged += to_images(Image.open(file), Reading(images.shape[1]))
    return torch.stack(damaged)


def noise(images: Tensor, deviation: float) -> Tensor:
    return images + deviation * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def checkerboard(images: Tensor, amplitude: float) -> Tensor:
    places = torch.arange(images.shape[2])[:, None] + torch.arange(images.shape[3])
    return images + amplitude * (1 - 2 * (places % 2))


def blocks(images: Tensor, part: float) -> Tensor:
    return images.lerp(F.interpolate(F.avg_pool2d(images, CELL), scale_factor=CELL), part)


def shift(images: Tensor, pixels: float) -> Tensor:
    return images.roll((int(pixels), int(pixels)), (2, 3))


def colour_cast(images: Tensor, strength: float) -> Tensor:
    return images * torch.tensor([1 + strength, 1.0, 1 - strength]).view(3, 1, 1)


class Damage(NamedTuple):
    make: Callable[[Tensor, float], Tensor]
    strengths: tuple[float, ...]


DAMAGES = {
    "blur, px": Damage(blur, (0.4, 0.6, 0.9, 1.3, 2.0)),
    "JPEG, quality": Damage(jpeg, (90, 70, 50, 30, 10)),
    "noise": Damage(noise, (0.01, 0.02, 0.04, 0.08, 0.16)),
    "checkerboard": Damage(checkerboard, (0.01, 0.02, 0.04, 0.08, 0.16)),
    "8x8 blocks": Damage(blocks, (0.1, 0.2, 0.4, 0.7, 1.0)),
    "shift, px": Damage(shift, (1, 2, 3, 5, 8)),
    "colour cast": Damage(colour_cast, (0.02, 0.05, 0.1, 0.2, 0.4)),
}


def measure(images: Tensor, damaged: Tensor) -> dict[str, float]:
    """All numbers of damaged images beside their originals."""
    observer, measured = Observer(open_networks(["effnet"])), PerImage()
    for some, others in zip(images.split(32), damaged.split(32), strict=True):
        measured.add(
            psnr_db=psnr_db(mse(some, others).clamp(min=1e-10)),
            border_ratio=artefacts.border_ratio(others, CELL),
            period2_energy=artefacts.period2_energy(others),
            sharpness=artefacts.sharpness(some, others),
            **observer.add_pairs("originals", some, "damaged", others),
        )
    distances = observer.distances("damaged", "originals", paired=True)
    return {name: measured.value(name) for name in measured} | {name: one.value for name, one in distances.items()}


def verdicts(curves: dict[str, list[dict[str, float]]], own: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Whether every perceptual number rises with a damage; what raises and what lowers each artefact number most."""

    def moved(damage: str, name: str) -> float:
        return math.log(curves[damage][-1][name] / own[name])

    rises = {
        damage: all(
            before[name] < after[name] for name in (*SET, *PAIR) for before, after in itertools.pairwise([own, *points])
        )
        for damage, points in curves.items()
    }
    extremes = {
        f"damage that {way} it most": {
            name: choose(curves, key=lambda damage, name=name: moved(damage, name)) for name in ARTEFACTS
        }
        for way, choose in (("raises", max), ("lowers", min))
    }
    return {"every perceptual number rises": rises, **extremes}


def chart(curves: dict[str, list[dict[str, float]]], own: dict[str, float], images: Tensor) -> Image.Image:
    """The curves above what the damages look like."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(13, 17), layout="constrained", dpi=90)
    canvas, names = FigureCanvasAgg(sheet), [*SET, *PAIR, *ARTEFACTS]
    top, below = np.ravel(sheet.subfigures(2, 1, height_ratios=(6, 11)))  # pyright: ignore
    for axes, name in zip(top.subplots(2, 3).flat, names, strict=True):
        for damage, points in curves.items():
            axes.plot(range(6), [own[name], *(point[name] for point in points)], marker="o", markersize=3, label=damage)
        axes.set_title(name)
        axes.set_xlabel("strength")
        if name in ARTEFACTS:
            axes.axhline(own[name], color="black", linewidth=0.8)
        else:
            axes.set_yscale("symlog", linthresh=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    top.axes[0].legend(frameon=False, fontsize=7)
    shown = images[:1, :, 24:104, 24:104] if images.shape[-1] >= 104 else images[:1]
    cells = below.subplots(len(DAMAGES), 6)
    for row, (name, damage) in zip(cells, DAMAGES.items(), strict=True):
        views = [shown, *(damage.make(shown, strength).clamp(0, 1) for strength in damage.strengths)]
        for axes, view, strength in zip(row, views, ("original", *damage.strengths), strict=True):
            axes.imshow(view[0].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title(f"{name} {strength:g}" if isinstance(strength, float | int) else strength, fontsize=8)
            axes.axis("off")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--num", type=int, default=480)
    parser.add_argument("--out", default="damages.png")
    chosen = parser.parse_args()
    keep_freed_memory()
    images = some_images(chosen.data, "test", Preprocessing(image_size=chosen.image_size), chosen.num)
    own = measure(images, images)
    curves: dict[str, list[dict[str, float]]] = {}
    for name, damage in tqdm(DAMAGES.items(), desc="damages"):
        made = (damage.make(images, strength).clamp(0, 1) for strength in damage.strengths)
        curves[name] = [measure(images, one) for one in made]
    found = {"data": chosen.data, "image_size": chosen.image_size, "num_images": len(images), "originals": own}
    found |= verdicts(curves, own) | {
        "curves": curves,
        "strengths": {name: one.strengths for name, one in DAMAGES.items()},
    }
    write_json(Path(chosen.out).with_suffix(".json"), found)
    chart(curves, own, images).quantize(256).save(chosen.out, optimize=True)
    for name, points in {"originals": [own], **curves}.items():
        for metric in (*SET, *PAIR, "psnr_db", *ARTEFACTS):
            print(f"{name:14} {metric:14} " + " ".join(f"{point[metric]:9.4g}" for point in points))
    for question, answers in verdicts(curves, own).items():
        print(question, answers)


if __name__ == "__main__":
    main()
