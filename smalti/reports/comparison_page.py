"""The report of `smalti compare`: one self-contained page, the lesson first, then each measurement."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from smalti.evaluation.catalogue import METRICS, heading
from smalti.images.contact_sheets import grid
from smalti.reports import generation_page, html, tables
from smalti.reports.charts import curve_of, curves, panels
from smalti.reports.compared import Comparison, System
from smalti.reports.generation_page import generation, interpolations
from smalti.reports.gradients_page import gradients
from smalti.reports.lesson import as_records, lesson

QUALITY = ("psnr_db", "ssim", "effnet_lpips", "fd_effnet")
ARTEFACTS = ("sharpness", "border_ratio", "period2_energy", "ring_error")
BOUNDS = ("distortion_nats", "relaxed_distortion_nats", "rate_nats", "elbo_nats", "bits_per_dim")
USE = ("usage", "perplexity")


def flag_rates(systems: Sequence[System]) -> list[str]:
    """Warnings about discrete systems whose rate differs from that of the first."""
    rates = [(system.name, system.bits_per_image) for system in systems if system.bits_per_image is not None]
    first, rate = rates[0] if rates else ("", 0.0)
    return [
        f"{name} spends {own:.0f} bits an image, {first} {rate:.0f}: their distortions are not comparable"
        for name, own in rates
        if abs(own - rate) > 0.5
    ]


def as_json(comparison: Comparison, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of the report."""
    return {
        "settings": dict(settings),
        "unequal_rates": flag_rates(comparison.systems),
        "systems": {
            system.name: {
                "bits_per_image": system.bits_per_image,
                "num_parameters": system.model.num_parameters,
                "images_per_second": system.images_per_second,
                "peak_bytes": system.peak_bytes,
                "gradient_path": system.path._asdict(),
                "gradient_noise": system.noise._asdict(),
                "relaxation": system.relaxed,
                "rate_distortion": system.points,
                "originals": system.evaluations[0]["originals"],
                "seeds": [one["metrics"] for one in system.evaluations],
            }
            for system in comparison.systems
        },
        "pca": [
            {"dims": one.dims, "num_images": one.num_images, "left_out": one.left_out or None, **one.metrics}
            for one in comparison.pca.values()
        ],
        "num_generated": comparison.sets.num_images,
        **as_result(comparison, brief=False),
    }


def as_result(comparison: Comparison, brief: bool = True) -> dict[str, Any]:
    """What the verb returns: the lesson's table, the distances of samples, the priors; if brief each system's PSNR."""
    psnr = {f"{one.name}_psnr_db": statistics.mean(one.values("psnr_db")) for one in comparison.systems}
    return {
        **(psnr if brief else {}),
        "table": as_records(comparison),
        "generation": generation_page.as_records(comparison),
        "priors": generation_page.prior_records(comparison),
    }


def as_html(comparison: Comparison) -> str:
    """The page."""
    systems = comparison.systems
    first = systems[0].evaluations[0]
    common = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in comparison.settings.items())
    flags = "".join(f'<p class="flag">{html.escape(text)}.</p>' for text in flag_rates(systems))
    parts = [
        f"<h1>{html.escape(', '.join(system.name for system in systems))}: what each is for</h1>",
        html.paragraph(
            "An encoder makes features of an image, a bottleneck makes latents of the features, a decoder makes an"
            " image of the latents.",
            _alike(systems),
        ),
        html.paragraph(
            f"Measured on {first['num_images']} images of the {first['split']} split of {first['data']}.",
            f"Settings: {common}.",
        ),
        flags,
        "<h2>The systems</h2>",
        '<p>What each is by construction, and below that <span style="color: #9a3412">what was measured in this run'
        "</span>. The sections that follow have the rest.</p>",
        lesson(comparison),
        _reconstructions(comparison),
        _rates(systems),
        generation(comparison),
        interpolations(comparison),
        gradients(comparison),
        _usage(systems),
        *_codes(systems),
        _cost(comparison),
        "<h2>All numbers</h2>",
        _everything(systems),
    ]
    return html.document("smalti: a comparison", "\n".join(parts))


def _alike(systems: Sequence[System]) -> str:
    """What the systems have in common."""
    networks = [(one.model.config.networks, one.model.config.likelihood) for one in systems]
    order = "the same images in the same order, for as many steps"
    if all(one == networks[0] for one in networks):
        return (
            f"The systems here have the same networks but for the channels between them and saw {order}: they differ"
            " in the bottleneck."
        )
    return f"The systems here saw {order}; their networks or likelihoods differ as their recipes say."


def _row(system: System) -> tables.Row:
    """A system's means over seeds, with their standard errors; of one seed those of the evaluation."""
    found = system.evaluations[0]
    if len(system.evaluations) > 1:
        names = [name for name in found["metrics"] if len(system.values(name)) == len(system.evaluations)]
        count = len(system.evaluations)
        metrics = {name: statistics.mean(system.values(name)) for name in names}
        spread = {name: statistics.stdev(system.values(name)) / count**0.5 for name in names}
        found = {**found, "metrics": metrics, "spread": spread}
    return tables.Row(system.name, found)


def _table(rows: Sequence[tables.Row], metrics: Sequence[str]) -> str:
    """The metrics that occur, with their meanings."""
    rows = [row for row in rows if any(name in row.numbers() for name in metrics)]
    known = [name for name in metrics if any(name in row.numbers() for row in rows)]
    return tables.as_html(rows, known, "system") + tables.meanings(rows, known)


def _reconstructions(comparison: Comparison) -> str:
    """Pictures of the same images, PCA among them, and distances to the originals."""
    systems, count = comparison.systems, len(comparison.images)
    pictures, rows = {"originals": comparison.images}, [_row(system) for system in systems]
    for system in systems:
        pictures[f"{system.name}, {system.text('psnr_db')} dB"] = system.model.reconstruct(comparison.images).cpu()
    told = []
    for dims, pca in comparison.pca.items():
        whose = ", ".join(one.name for one in systems if one.discrete is None and one.num_latents == dims)
        if pca.left_out:
            told.append(f"PCA beside {whose} is left out: {pca.left_out}.")
            continue
        title = f"PCA, {dims:,} numbers"
        if pca.shown is not None:
            pictures[f"{title}, {pca.metrics['psnr_db']:.2f} dB"] = pca.shown
        conditions = {**systems[0].evaluations[0], "num_images": pca.num_images}
        rows.append(tables.Row(title, {**conditions, "metrics": pca.metrics, "spread": {}, "networks": {}}))
        told.append(
            f"PCA, fitted on training images, is the linear baseline: the {dims:,} numbers that it keeps are as many as"
            f" the latents of {whose}."
        )
    note = html.paragraph("The originals, then the same images from each system.", *told)
    shown = html.stack(html.captioned_picture(grid(row, count, 2), caption) for caption, row in pictures.items())
    tables_of = f"<h2>Distortion</h2>{_table(rows, QUALITY)}<h2>Artefacts</h2>{_table(rows, ARTEFACTS)}"
    return f"<h2>Reconstructions</h2>{note}{shown}{tables_of}"


def _rates(systems: Sequence[System]) -> str:
    """Rate and distortion, over training too."""
    points = {system.name: system.points for system in systems}  # all of them: a system has one colour everywhere
    plots = [curves(points, "bits per pixel", "PSNR, dB")]
    for name, label in (("distortion_nats", "distortion in training, nats"), ("usage", "usage in training")):
        plots.append(curves({system.name: curve_of(system.records, name) for system in systems}, "step", label))
    note = html.paragraph(
        "Bits per pixel of the codes at fixed length, for a continuous p(z) of its KL; without a p(z) there is no rate"
        " and no point. The ELBO is a bound of log p(x), of densities of the values in [0, 1]."
    )
    about = [{} if one.bits_per_image is None else {"bits_an_image": round(one.bits_per_image)} for one in systems]
    rows = [tables.Row(row.name, row.evaluation, more) for row, more in zip(map(_row, systems), about, strict=True)]
    return f"<h2>Rate and distortion</h2>{note}{panels(plots, 12.0, 3.4)}{_table(rows, BOUNDS)}"


def _usage(systems: Sequence[System]) -> str:
    rows = []
    for system in systems:
        if (discrete := system.discrete) is not None:
            size = f"{discrete.num_codebooks} x {discrete.codebook_size}"
            rows.append([system.name, size, *map(system.text, USE)])
    if not rows:
        return ""
    note = html.paragraph(
        "Over all codes of the split, after distortion on purpose: a codebook can be used evenly and reconstruct"
        " badly.",
        f"Usage: {METRICS['usage'].meaning}",
        f"Perplexity: {METRICS['perplexity'].meaning}",
    )
    return f"<h2>Use of the codes</h2>{note}{html.table(['system', 'codebooks x K', *map(heading, USE)], rows)}"


def _codes(systems: Sequence[System]) -> list[str]:
    parts = []
    for system in systems:
        if system.pictures:
            figures = [html.captioned_picture(picture, caption) for picture, caption in system.pictures]
            parts.append(f"<p><b>{html.escape(system.name)}</b></p>{html.row(figures)}")
    return ["<h2>The codes in pictures</h2>", *parts] if parts else []


def _cost(comparison: Comparison) -> str:
    rows, threads = [], torch.get_num_threads()
    for system in comparison.systems:
        memory = "-" if system.peak_bytes is None else f"{system.peak_bytes / 2**20:.0f}"
        rows.append([system.name, f"{system.model.num_parameters:,}", f"{system.images_per_second:.0f}", memory])
    for prior in comparison.priors:
        rows.append([prior.title, f"{prior.num_parameters:,}", f"{prior.images_per_second:.0f}", "-"])
    note = html.paragraph(
        f"Training on {threads} thread{'s' if threads > 1 else ''}; memory of the whole process at its peak."
    )
    return f"<h2>Cost</h2>{note}{html.table(['what', 'parameters', 'images per second', 'memory, MB'], rows)}"


def _everything(systems: Sequence[System]) -> str:
    names = list(dict.fromkeys(name for system in systems for name in system.evaluations[0]["metrics"]))
    rows = [[heading(name), *(system.text(name) for system in systems)] for name in names]
    return html.table(["", *(system.name for system in systems)], rows)
