"""The table that a comparison begins with: what each system is by construction, and what was measured of that."""

from collections.abc import Callable
from typing import Any, NamedTuple

from smalti.evaluation.catalogue import describe, format_metric
from smalti.reports import html
from smalti.reports.compared import Comparison, System


class Cell(NamedTuple):
    """What a system is said to be, and the measurement that shows it; empty where there is none."""

    claim: str
    measured: str


class Row(NamedTuple):
    """A row of the table: one aspect of every system."""

    key: str
    title: str
    cell: Callable[[Comparison, System], Cell]


def _encoder_output(_: Comparison, system: System) -> Cell:
    height, width = system.grid
    channels, values = system.model.bottleneck.in_channels, system.model.config.preprocessing.num_dims
    measured = f"{channels} x {height} x {width} = {channels * height * width:,} numbers for an image's {values:,}"
    return Cell(system.model.bottleneck.in_words.features, measured)


def _latent_space(_: Comparison, system: System) -> Cell:
    words = system.model.bottleneck.in_words.latent_space
    if (discrete := system.discrete) is not None:
        shape = " x ".join(map(str, discrete.grid_shape(*system.grid)))
        measured = f"{shape} codes, K = {discrete.codebook_size:,}: {system.bits_per_image:,.0f} bits an image"
        return Cell(words, f"{measured}; {system.text('usage')} of the codes occur")
    measured = f"{system.num_latents:,} real numbers"
    if system.values("active_units"):
        measured += f", of which {system.text('active_units')} vary with the image (active units)"
    return Cell(words, measured)


def _decoder_input(_: Comparison, system: System) -> Cell:
    height, width = system.grid
    channels = system.model.bottleneck.out_channels
    return Cell(system.model.bottleneck.in_words.latents, f"{channels} x {height} x {width} numbers")


def _loss(_: Comparison, system: System) -> Cell:
    measured = f"distortion {system.text('distortion_nats')} nats"
    if system.values("rate_nats"):
        measured += f", KL {system.text('rate_nats')} nats an image"
    return Cell(system.model.bottleneck.in_words.loss, measured)


def _purpose(comparison: Comparison, system: System) -> Cell:
    measured = f"reconstructs at {system.text('psnr_db')} dB"
    if system.discrete is None:
        values = system.model.config.preprocessing.num_dims
        measured += f" from {system.num_latents:,} latents, {system.num_latents / values:.0%} of the image's values"
    baseline = comparison.pca.get(system.num_latents) if system.discrete is None else None
    if baseline is not None and baseline.metrics:
        measured += f"; PCA with as many numbers at {format_metric('psnr_db', baseline.metrics['psnr_db'])} dB"
    if system.values("nominal_bits_per_pixel"):
        measured += f" from {system.text('nominal_bits_per_pixel')} bits per pixel"
    return Cell(system.model.bottleneck.in_words.purpose, measured)


def _generation(comparison: Comparison, system: System) -> Cell:
    parts = []
    for kind, whose in (("p(z)", "p(z)"), ("noise", "noise"), ("prior", "")):
        for origin in comparison.of(kind, system.name):
            if (distance := comparison.distance(origin)) is not None:
                parts.append(f"{whose or origin.prior} {format_metric(comparison.set_metrics[0], distance)}")
    label = describe(comparison.set_metrics[0]).label if parts else ""
    measured = f"{label} to the {comparison.split} images: {', '.join(parts)}" if parts else ""
    return Cell(system.model.bottleneck.in_words.generation, measured)


def _gradient_stop(_: Comparison, system: System) -> Cell:
    blocked = system.path.blocked
    measured = "" if blocked is None else f"length of the encoder's gradient without a remedy: {blocked:.3g}"
    return Cell(system.model.bottleneck.in_words.gradient_stop, measured)


def _how_gradients_pass(_: Comparison, system: System) -> Cell:
    return Cell(how_gradients_pass(system), f"length of the encoder's gradient: {system.path.passed:.3g}")


def how_gradients_pass(system: System) -> str:
    """In words, with the estimator where there is a choice."""
    bottleneck = system.model.bottleneck
    return bottleneck.how_gradients_pass + (f" ({bottleneck.estimator})" if bottleneck.estimator else "")


ROWS = (
    Row("encoder_output", "the encoder gives", _encoder_output),
    Row("latent_space", "latent space", _latent_space),
    Row("decoder_input", "the decoder gets", _decoder_input),
    Row("loss", "loss", _loss),
    Row("purpose", "made for", _purpose),
    Row("generation", "can it generate?", _generation),
    Row("gradient_stop", "where the gradient would stop", _gradient_stop),
    Row("how_gradients_pass", "how it passes", _how_gradients_pass),
)


def lesson(comparison: Comparison) -> str:
    """The table as HTML, a column for each system."""
    header = ["", *(html.escape(system.name) for system in comparison.systems)]
    rows = [
        [html.escape(row.title), *(_as_html(row.cell(comparison, system)) for system in comparison.systems)]
        for row in ROWS
    ]
    return html.table_of_html(header, rows, "claims")


def _as_html(cell: Cell) -> str:
    measured = f'<span class="measured">{html.escape(cell.measured)}</span>' if cell.measured else ""
    return html.escape(cell.claim) + measured


def as_records(comparison: Comparison) -> list[dict[str, Any]]:
    """The table for a program: a record for each system, each of its rows as {"claim": ..., "measured": ...}."""
    return [
        {"system": system.name, **{row.key: row.cell(comparison, system)._asdict() for row in ROWS}}
        for system in comparison.systems
    ]
