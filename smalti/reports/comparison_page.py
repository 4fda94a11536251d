"""The report of `smalti compare`: one self-contained page, distortion before usage."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from smalti.evaluation.catalogue import format_metric, heading
from smalti.evaluation.comparison import GradientNoise
from smalti.images.contact_sheets import grid
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.reports import html
from smalti.reports.charts import curve_of, curves, panels

DISTORTION = ("psnr_db", "ssim", "distortion_nats", "rate_nats", "elbo_nats", "bits_per_dim")
USE = ("usage", "perplexity")


@dataclass
class System:
    """One system of a comparison, all its seeds.

    Attributes:
        name: of the recipe.
        model: of the first seed.
        evaluations: what `evaluate` gave, for each seed.
        records: the first seed's metrics.jsonl.
        noise: of the encoder's gradient, first seed.
        points: (bits per pixel, PSNR) of the first seed.
        pictures: of the latents, with captions.
        images_per_second: in training, median.
        peak_bytes: of memory in training, if measured.
        bits_per_image: T log2 K; None for continuous latents.
    """

    name: str
    model: Autoencoder
    evaluations: list[dict[str, Any]]
    records: list[dict[str, float]]
    noise: GradientNoise
    points: list[tuple[float, float]]
    pictures: list[tuple[Image.Image, str]]
    images_per_second: float
    peak_bytes: int | None
    bits_per_image: float | None

    def values(self, name: str) -> list[float]:
        """One metric of every seed."""
        return [one["metrics"][name] for one in self.evaluations if name in one["metrics"]]

    def text(self, name: str) -> str:
        """The mean over seeds, with the standard deviation where there are several."""
        found = self.values(name)
        if not found:
            return "-"
        return format_metric(name, statistics.mean(found), statistics.stdev(found) if len(found) > 1 else None)


def flag_rates(systems: Sequence[System]) -> list[str]:
    """Warnings about discrete systems whose rate differs from that of the first."""
    rates = [(system.name, system.bits_per_image) for system in systems if system.bits_per_image is not None]
    first, rate = rates[0] if rates else ("", 0.0)
    return [
        f"{name} spends {own:.0f} bits an image, {first} {rate:.0f}: their distortions are not comparable"
        for name, own in rates
        if abs(own - rate) > 0.5
    ]


def as_json(systems: Sequence[System], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of the report."""
    return {
        "settings": dict(settings),
        "unequal_rates": flag_rates(systems),
        "systems": {
            system.name: {
                "bits_per_image": system.bits_per_image,
                "num_parameters": system.model.num_parameters,
                "images_per_second": system.images_per_second,
                "peak_bytes": system.peak_bytes,
                "gradient_noise": system.noise._asdict(),
                "rate_distortion": system.points,
                "seeds": [one["metrics"] for one in system.evaluations],
            }
            for system in systems
        },
    }


def as_html(systems: Sequence[System], settings: Mapping[str, Any], images: Tensor) -> str:
    """The page.

    Args:
        systems: what was compared.
        settings: common to all systems, for the page's head.
        images: (B, C, H, W) to reconstruct side by side.
    """
    first = systems[0].evaluations[0]
    common = ", ".join(f"{name} {value}" for name, value in settings.items())
    flags = "".join(f'<p class="flag">{html.escape(text)}.</p>' for text in flag_rates(systems))
    parts = [
        f"<h1>{html.escape(', '.join(system.name for system in systems))}</h1>",
        "<p>The same encoder, decoder, data order and number of steps; they differ in the bottleneck."
        f" {first['num_images']} images of the {first['split']} split of {html.escape(first['data'])}."
        f" {html.escape(common)}.</p>{flags}",
        _distortion(systems),
        "<h2>Reconstructions</h2><p>The originals, then each system's.</p>",
        _reconstructions(systems, images),
        "<h2>Rate and distortion</h2><p>Bits per pixel of the codes at fixed length, for a VAE of its KL; an"
        " autoencoder has no rate.</p>",
        _charts(systems),
        "<h2>Use of the codes</h2><p>Over all codes of the split, after distortion on purpose: a codebook can be used"
        " evenly and reconstruct badly.</p>",
        _usage(systems),
        "<h2>How gradients pass</h2><p>Deviation and cosine: of the encoder's gradient over repeated passes of the same"
        " images, where only the bottleneck's noise differs. It says nothing of bias: see"
        " <code>smalti estimators</code>.</p>",
        _gradients(systems),
        "<h2>The latents</h2>",
        *(_latents(system) for system in systems),
        "<h2>Cost</h2>",
        _cost(systems),
        "<h2>All numbers</h2>",
        _everything(systems),
    ]
    return html.document("smalti: a comparison", "\n".join(parts))


def _distortion(systems: Sequence[System]) -> str:
    header = ["system", "bits an image, fixed length", *map(heading, DISTORTION)]
    rows = []
    for system in systems:
        bits = "-" if system.bits_per_image is None else f"{system.bits_per_image:.0f}"
        rows.append([system.name, bits, *map(system.text, DISTORTION)])
    return f"<h2>Distortion</h2>{html.table(header, rows)}"


def _reconstructions(systems: Sequence[System], images: Tensor) -> str:
    rows = {"originals": images}
    for system in systems:
        rows[f"{system.name}, {system.text('psnr_db')} dB"] = system.model.reconstruct(images).cpu()
    return "".join(html.captioned_picture(grid(row, len(images), 2), caption) for caption, row in rows.items())


def _charts(systems: Sequence[System]) -> str:
    points = {system.name: system.points for system in systems}  # all of them: a system has one colour everywhere
    plots = [curves(points, "bits per pixel", "PSNR, dB")]
    for name, label in (("distortion_nats", "distortion in training, nats"), ("usage", "usage in training")):
        plots.append(curves({system.name: curve_of(system.records, name) for system in systems}, "step", label))
    return panels(plots, 12.0, 3.4)


def _usage(systems: Sequence[System]) -> str:
    rows = []
    for system in systems:
        bottleneck = system.model.bottleneck
        if isinstance(bottleneck, DiscreteBottleneck):
            size = f"{bottleneck.num_codebooks} x {bottleneck.codebook_size}"
            rows.append([system.name, size, *map(system.text, USE)])
    return html.table(["system", "codebooks x K", *map(heading, USE)], rows)


def _gradients(systems: Sequence[System]) -> str:
    rows = []
    for system in systems:
        bottleneck, noise = system.model.bottleneck, system.noise
        estimator = f" ({bottleneck.estimator})" if bottleneck.estimator else ""
        how = bottleneck.how_gradients_pass + estimator
        rows.append([system.name, how, f"{noise.relative_deviation:.2f}", f"{noise.cosine:.3f}"])
    return html.table(["system", "how the gradient passes", "deviation / length", "cosine of two passes"], rows)


def _latents(system: System) -> str:
    figures = [html.captioned_picture(picture, caption) for picture, caption in system.pictures]
    return f"<p><b>{html.escape(system.name)}</b></p>{html.row(figures)}"


def _cost(systems: Sequence[System]) -> str:
    rows, threads = [], torch.get_num_threads()
    for system in systems:
        memory = "-" if system.peak_bytes is None else f"{system.peak_bytes / 2**20:.0f}"
        rows.append([system.name, f"{system.model.num_parameters:,}", f"{system.images_per_second:.0f}", memory])
    note = f"<p>Training on {threads} thread{'s' if threads > 1 else ''}; memory of the whole process at its peak.</p>"
    return note + html.table(["system", "parameters", "images per second", "memory, MB"], rows)


def _everything(systems: Sequence[System]) -> str:
    names = list(dict.fromkeys(name for system in systems for name in system.evaluations[0]["metrics"]))
    rows = [[heading(name), *(system.text(name) for system in systems)] for name in names]
    return html.table(["", *(system.name for system in systems)], rows)
