"""Charts as SVG text, with matplotlib."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from smalti.errors import SmaltiError

INK, ACCENT = "#222222", "#c2410c"
COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#a21caf", "#ca8a04", "#0f766e", "#475569", "#be123c", "#4d7c0f", "#6d28d9")
FEW = 12
Curve = Sequence[tuple[float, float]]


def figure(plot: Callable[[Any], None], width: float = 7.2, height: float = 2.6) -> str:
    """One of `panels`."""
    return panels([plot], width, height)


def panels(plots: Sequence[Callable[[Any], None]], width: float, height: float) -> str:
    """An SVG of charts side by side, each made by a `plot(axes)`; sizes in inches.

    Raises:
        SmaltiError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SmaltiError("the charts need matplotlib: pip install 'smalti[metrics]'") from error
    sheet = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(sheet)
    for axes, plot in zip(sheet.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes)
    file = io.StringIO()
    sheet.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def usage_chart(counts: Tensor) -> str:
    """How often each code of counts (K,) is used, most frequent first, relative to the uniform share."""
    share = (counts.double() / counts.sum()).sort(descending=True).values * len(counts)

    def plot(axes: Any) -> None:
        axes.bar(range(len(share)), share.tolist(), width=1.0, color=ACCENT)
        axes.axhline(1.0, color=INK, linewidth=0.8)
        axes.set_xlim(-0.5, len(share) - 0.5)
        axes.set_xlabel("code, most frequent first")
        axes.set_ylabel("times uniform")
        axes.set_yscale("symlog", linthresh=1.0)

    return figure(plot)


def learning_chart(records: Sequence[Mapping[str, float]], name: str, label: str) -> str:
    """One term of metrics.jsonl over the steps, with that of the validations where there are any."""
    training, validation = (curve_of(records, term) for term in (name, f"validation_{name}"))
    return figure(curves({"training" if validation else "": training, "validation": validation}, "step", label))


def curve_of(records: Sequence[Mapping[str, float]], name: str) -> Curve:
    """(step, value) of one term of metrics.jsonl."""
    return [(record["step"], record[name]) for record in records if name in record]


def curves(
    named: Mapping[str, Curve], x: str, y: str, *, log_x: bool = False, log_y: bool = False, legend: bool = True
) -> Callable[[Any], None]:
    """For `figure` and `panels`: named lines, with markers where points are few; empty ones are left out."""

    def plot(axes: Any) -> None:
        for colour, (name, curve) in zip(COLOURS * 9, named.items(), strict=False):
            if curve:
                marker = "o" if len(curve) < FEW else None
                axes.plot(*zip(*curve, strict=True), label=name, color=colour, marker=marker, markersize=4)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        if legend and any(name and curve for name, curve in named.items()):
            axes.legend(frameon=False, fontsize=7)

    return plot


def denoising_chart(measured: Mapping[str, Any]) -> str:
    """PSNR of noisy, restored and filtered images over the noise's level, from `smalti.evaluation.denoising`."""
    rows = measured["rows"]
    names = [name for name, value in rows[-1].items() if isinstance(value, Mapping)]
    lines = {
        name.replace("_", " "): [(row["level"], row[name]["psnr_db"]) for row in rows if name in row] for name in names
    }
    label = f"level of {measured['noise'].replace('_', ' ')} noise"
    return figure(curves(lines, label, "PSNR, dB"), height=3.6)
