"""How the gradient passes each bottleneck: with and without the remedy, its noise, and what relaxing costs."""

from collections.abc import Sequence
from typing import Any

from smalti.reports import html
from smalti.reports.charts import curves, panels
from smalti.reports.compared import Comparison, System
from smalti.reports.lesson import how_gradients_pass


def gradients(comparison: Comparison) -> str:
    """The section: the gradient with and without the remedy, its noise, and the relaxation gap over temperature."""
    header = ["system", "without a remedy", "how it passes", "as trained", "deviation / length", "cosine of two passes"]
    rows = []
    for system in comparison.systems:
        path, noise = system.path, system.noise
        blocked = "-" if path.blocked is None else f"{path.blocked:.3g}"
        numbers = [f"{path.passed:.3g}", f"{noise.relative_deviation:.2f}", f"{noise.cosine:.3f}"]
        rows.append([system.name, blocked, how_gradients_pass(system), *numbers])
    note = html.paragraph(
        "The length of the gradient of the distortion (nats per value of an image) with respect to the encoder's"
        " weights, over 32 images. Without a remedy the decoder gets the vectors of the codes that the encoder chose,"
        " or a z that was sampled and has forgotten how: then no gradient of the distortion reaches the encoder.",
        *_lengths(comparison.systems),
        "Deviation and cosine: of the encoder's gradient of the whole loss over repeated passes of the same images,"
        " where only the bottleneck's noise differs. They say nothing of bias.",
    )
    more = "<p>For the bias of the estimators see <code>smalti estimators</code>.</p>"
    relaxed = [_relaxation(system, system.relaxed) for system in comparison.systems if system.relaxed is not None]
    return "\n".join(["<h2>How gradients pass</h2>", note, html.table(header, rows), more, *relaxed])


def _lengths(systems: Sequence[System]) -> list[str]:
    stopped = [system for system in systems if system.path.blocked is not None]
    zero = [system for system in stopped if system.path.blocked == 0]
    free = [system.name for system in systems if system.path.blocked is None]
    lines = []
    if zero:
        names = ", ".join(system.name for system in zero)
        smallest = min(zero, key=lambda system: system.path.passed)
        lines.append(
            f"Measured without: exactly 0 for {names}; with the remedy at least {smallest.path.passed:.3g}"
            f" ({smallest.name})."
        )
    if free:
        lines.append(f"Nothing stops the gradient of {', '.join(free)}.")
    return lines


def _relaxation(system: System, relaxed: dict[str, Any]) -> str:
    """The relaxation gap of a system: text and chart."""
    rows, codes = relaxed["rows"], relaxed["codes_distortion_nats"]
    distortion = [(row["temperature"], row["relaxed_distortion_nats"]) for row in rows]
    ends = [rows[0]["temperature"], rows[-1]["temperature"]]
    lines = {
        "relaxed latents": distortion,
        "codes, the likeliest": [(at, codes) for at in ends],
        "codes, sampled": [(at, relaxed["sampled_distortion_nats"]) for at in ends],
    }
    deviation = {"": [(row["temperature"], row["relative_deviation"]) for row in rows]}
    charts = panels(
        [
            curves(lines, "temperature", "distortion, nats", log_x=True),
            curves(deviation, "temperature", "gradient: deviation / length", log_x=True),
        ],
        9.0,
        3.0,
    )
    told = [
        f"at temperature {row['temperature']:g} the distortion of its relaxed latents is"
        f" {row['relaxed_distortion_nats']:.4g} nats ({row['relaxed_distortion_nats'] - codes:+.3g}) and its gradient"
        f" deviates by {row['relative_deviation']:.2f} of its length"
        for row in (rows[0], rows[-1])
    ]
    note = html.paragraph(
        f"What relaxing costs {system.name}: in training the decoder gets mixtures of code vectors, whose weights"
        " sharpen as the temperature falls; in use it gets codes. The difference of the two distortions is the"
        " relaxation gap. Low temperatures tend to sampled codes, which are not the likeliest ones.",
        f"Measured on the trained model: the codes' distortion is {codes:.4g} nats (sampled codes"
        f" {relaxed['sampled_distortion_nats']:.4g}); {told[0]}, {told[1]}.",
    )
    return f"<h2>The relaxation gap of {html.escape(system.name)}</h2>{note}{charts}"
