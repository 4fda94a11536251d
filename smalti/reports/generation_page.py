"""Images that nobody made: samples of each system and of the priors, and the way between two images."""

from typing import Any

import torch
from torch import Tensor

from smalti.evaluation.catalogue import describe, format_metric, heading
from smalti.images.contact_sheets import grid
from smalti.reports import html, tables
from smalti.reports.compared import Comparison, Origin

STEPS, PAIRS = 8, 2
SAMPLES = ("p(z)", "noise", "prior")
PRIOR_METRICS = ("bits_per_code", "share_of_histogram", "histogram_bits_per_code", "uniform_bits_per_code")


def generation(comparison: Comparison) -> str:
    """The section: pictures, one table of distances, bits per code of the priors."""
    pictures = [
        html.captioned_picture(grid(comparison.sets.shown[origin.title], 16, 2), _caption(comparison, origin))
        for origin in comparison.origins
        if origin.kind in (*SAMPLES, "real") and origin.title in comparison.sets.shown
    ]
    told = [
        "To generate, something has to give latents that no image was encoded to, and the decoder makes an image of"
        " them. p(z) as a rule gives each position of the grid its z or its code alone, so that none knows of its"
        " neighbours.",
        "A prior is trained on the codes of images, to know which go together." if comparison.priors else "",
        "Where there is no p(z), the decoder gets noise with the mean and the deviation of the latents of real images,"
        " channel by channel."
        if comparison.of("noise")
        else "",
        "The pictures are the first of each set, not selected.",
    ]
    parts = [html.paragraph(*told), html.stack(pictures), _distances(comparison), _priors(comparison)]
    return "\n".join(["<h2>Generation</h2>", *parts])


def _caption(comparison: Comparison, origin: Origin) -> str:
    distance = comparison.distance(origin)
    if distance is None:
        return origin.title
    metric = comparison.set_metrics[0]
    return f"{origin.title}: {describe(metric).label} {format_metric(metric, distance)}"


def _distances(comparison: Comparison) -> str:
    metrics, sets = comparison.set_metrics, comparison.sets
    if not metrics:
        return '<p class="flag">Distances of sets are left out: no feature network is installed (extra perceptual).</p>'
    rows, best = [], set()
    for origin in comparison.origins:
        if found := sets.distances.get(origin.title):
            cells = [format_metric(name, found[name].value, found[name].spread) for name in metrics]
            rows.append([origin.title, _what(origin), *cells])
    sampled = [origin for kind in SAMPLES for origin in comparison.of(kind)]
    titles = [row[0] for row in rows]
    for column, metric in enumerate(metrics, start=2):
        values = {one.title: comparison.distance(one, metric) for one in sampled}
        if known := {title: value for title, value in values.items() if value is not None}:
            best.add((titles.index(min(known, key=lambda title: known[title])), column))
    note = html.paragraph(
        f"Distances to the same {sets.num_images} images of the {comparison.split} split, each set of as many images;"
        " ± is the standard error. The Frechet distance (FD) falls with the number of images and is comparable in this"
        " table only. Real images are what samples cannot be expected to beat, and a system's reconstructions, of"
        " these very images, what a perfect prior of its codes could approach. The best of the samples is bold."
    )
    return (
        note
        + html.sentences(verdicts(comparison))
        + html.table(["images", "what they are", *map(heading, metrics)], rows, best)
    )


def _what(origin: Origin) -> str:
    return {
        "p(z)": "samples of p(z)",
        "noise": "decoded noise",
        "prior": "samples of a prior",
        "real": "nothing generated",
        "reconstruction": "reconstructions",
    }[origin.kind]


def verdicts(comparison: Comparison) -> list[str]:
    """What the distances say of each prior against codes from p(z), and of z from p(z) against noise."""
    label = describe(comparison.set_metrics[0]).label if comparison.set_metrics else ""
    discrete = {system.name for system in comparison.systems if system.discrete is not None}
    pairs = [(prior, other) for prior in comparison.of("prior") for other in comparison.of("p(z)", prior.system)]
    pairs += [
        (one, noise) for one in comparison.of("p(z)") if one.system not in discrete for noise in comparison.of("noise")
    ]
    found = []
    for one, other in pairs:
        first, second = comparison.distance(one), comparison.distance(other)
        if first is not None and second is not None:
            word = "nearer to" if first < second else "farther from"
            metric = comparison.set_metrics[0]
            numbers = f"{format_metric(metric, first)} against {format_metric(metric, second)}"
            whose = f"samples of “{one.title}” are {word} the {comparison.split} images than those of “{other.title}”"
            found.append(f"By {label}, {whose}: {numbers}.")
    return found


def _priors(comparison: Comparison) -> str:
    if not comparison.priors:
        return ""
    rows: dict[str, list[tables.Row]] = {}
    for prior in comparison.priors:
        row = tables.Row(prior.title, prior.evaluation, {"num_parameters": prior.num_parameters})
        rows.setdefault(prior.system, []).append(row)
    note = html.paragraph(
        "What the priors know of the codes, in bits: a prior is worth what it saves against the histogram of the codes"
        " at each position, which knows no neighbours, and against the fixed length log2 K. Codes of different"
        " tokenizers are different things, so their bits stand in different tables."
    )
    shown = "".join(tables.as_html(own, PRIOR_METRICS, "prior") for own in rows.values())
    return f"<h2>The priors</h2>{note}{shown}"


def interpolations(comparison: Comparison) -> str:
    """The section: the way between the same two images in each system."""
    images = comparison.images
    pairs = [(images[index], images[index + 1]) for index in range(0, min(2 * PAIRS, len(images) - 1), 2)]
    ways = {"the originals": [_ends(*pair) for pair in pairs]}
    for system in comparison.systems:
        ways[system.name] = [system.model.interpolate(start, end, STEPS).cpu() for start, end in pairs]
    rows = []
    for name, own in ways.items():
        sheets = [html.picture(grid(way, STEPS, 2), f"{name}, from image to image") for way in own]
        rows.append(f"<figure>{html.row(sheets)}<figcaption>{html.escape(name)}</figcaption></figure>")
    note = html.paragraph(
        "A way begins and ends with the system's reconstructions of the same two images, and each step decodes a state"
        " of its bottleneck: of continuous latents a point between the two, of a discrete system the codes of the"
        " feature between the two, so that positions switch from one code to another at different steps."
    )
    return "\n".join(["<h2>Between two images</h2>", note, html.stack(rows)])


def _ends(start: Tensor, end: Tensor) -> Tensor:
    """Two images with white between them, as long as a way."""
    return torch.stack([start, *[torch.ones_like(start)] * (STEPS - 2), end])


def as_records(comparison: Comparison) -> list[dict[str, Any]]:
    """The table of distances for a program."""
    return [
        {
            "name": origin.title,
            "kind": origin.kind,
            "system": origin.system or None,
            "prior": origin.prior or None,
            **{name: one.value for name, one in found.items()},
            **{f"{name}_spread": one.spread for name, one in found.items()},
        }
        for origin in comparison.origins
        if (found := comparison.sets.distances.get(origin.title, {})) or origin.title in comparison.sets.shown
    ]


def prior_records(comparison: Comparison) -> list[dict[str, Any]]:
    """The priors' numbers for a program."""
    return [
        {
            "name": prior.title,
            "system": prior.system,
            "prior": prior.name,
            "num_parameters": prior.num_parameters,
            "images_per_second": prior.images_per_second,
            **prior.evaluation["metrics"],
        }
        for prior in comparison.priors
    ]
