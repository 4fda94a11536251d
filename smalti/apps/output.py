"""What the command line prints: progress on stderr, a verb's result as text."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def say(text: str, file: TextIO | None = None) -> None:
    """Print to stderr, or to another file."""
    print(printable(text), file=file or sys.stderr)


@contextlib.contextmanager
def hushed(wanted: bool) -> Iterator[None]:
    """Print nothing to stderr within, if that is wanted."""
    with contextlib.ExitStack() as stack:
        if wanted:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for as long as something lasts that tells how far it is: (done, of)."""
    from tqdm import tqdm

    with tqdm(desc=what, file=sys.stderr, leave=False) as shown:

        def tell(done: int, of: int) -> None:
            shown.total = of
            shown.update(done - shown.n)

        yield tell


def printable(text: str) -> str:
    """The text with what a terminal would obey, or cannot show, as \\uXXXX: names in files are a stranger's.

    That is controls (but new lines), lone surrogates, and what turns the direction of writing; JSON stays JSON.
    """
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_text(verb: str, result: dict[str, Any]) -> str:
    """A verb's result for a person."""
    if verb == "report":
        return "\n".join([result["markdown"], *_written(result)])
    lines = []
    if verb == "evaluate":
        lines.append(_measured_on(result))
    texts = _metrics(result) if "metrics" in result else {}
    shown = {name: value for name, value in result.get("metrics", result).items() if name != "written"}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if value in ({}, [], "") or name == "notes" or (isinstance(value, list) and isinstance(value[0], dict)):
            continue  # nothing, or rows for a program or a table
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_short(item)}" for key, item in value.items())
        lines.append(f"  {name:<{width}}  {texts.get(name) or _short(value)}")
    if probes := result.get("probes"):
        lines += _probes_as_text(probes)
    if "denoising" in result:
        lines += _denoising(result["denoising"])
    for name in ("split_rows", "class_rows", "caption_rows", "left_out_rows", "model_rows"):
        lines += _counts(result.get(name, []))
    lines += [f"note: {note}" for note in result.get("notes", [])]
    return "\n".join([*lines, *_written(result), *result.get("next", [])])


def _measured_on(result: dict[str, Any]) -> str:
    """Which images, how they were made to fit, and what looked at them."""
    text = f"{result['num_images']} images of the {result['split']} split of {result['data']}"
    if fitted := result.get("preprocessing"):
        from smalti.images.preprocessing import size_in_words

        text += f"; {size_in_words(fitted['image_size'])}, {fitted['resize']}"
    for network in result.get("networks", {}).values():
        weights = f", weights {network['weights_sha256'][:12]}" if "weights_sha256" in network else ""
        text += f"\nlooked at by {network['network']}{weights}; {network['input']}"
    return text


def _metrics(result: dict[str, Any]) -> dict[str, str]:
    """The numbers of an evaluation with their units, and the meaning of those that stand beside the originals'."""
    from smalti.evaluation.catalogue import describe
    from smalti.reports.tables import metric_texts

    texts = {name: f"{text} {describe(name).unit}".rstrip() for name, text in metric_texts(result).items()}
    beside = [name for name in ("ring_error", *result.get("originals", {})) if name in texts]
    width = max((len(texts[name]) for name in beside), default=0)
    return texts | {name: f"{texts[name]:<{width}}  {describe(name).meaning}" for name in beside}


def _written(result: dict[str, Any]) -> list[str]:
    written = result.get("written", [])
    paths = [written] if isinstance(written, str) else written
    more = [f"and {len(paths) - 12} more"] if len(paths) > 12 else []
    return [f"wrote {path}" for path in paths[:12]] + more


def _denoising(measured: dict[str, Any]) -> list[str]:
    """The curve of `smalti.evaluation.denoising` as a table."""
    from smalti.evaluation.catalogue import format_metric

    def quality(found: dict[str, Any] | None) -> str:
        names = [name for name in ("psnr_db", "ssim") if found and name in found]
        return "  ".join(format_metric(name, found[name]) for name in names if found) or "-"

    ways = [name for name, value in measured["rows"][-1].items() if isinstance(value, dict)]
    table = [["level", *(name.replace("_", " ") for name in ways), "ahead of the best filter"]]
    for row in measured["rows"]:
        ahead = f"{row['ahead_db']:+.2f} dB" if "ahead_db" in row else "-"
        table.append([f"{row['level']:g}", *(quality(row.get(way)) for way in ways), ahead])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    kind, trained = measured["noise"].replace("_", " "), measured["trained_noise"]
    lines = [f"{kind} noise: PSNR in dB and SSIM of {measured['num_images']} images, by a model trained on {trained}"]
    lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return lines + [f"  left out: {name} ({remedy})" for name, remedy in measured["left_out"].items()]


def _counts(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of an account: what, how many, and the rest as it comes."""
    if not rows:
        return []
    table = [list(rows[0]), *([_cell(own) for own in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligned = [[cell.rjust(width) if column == 1 else cell.ljust(width) for column, (cell, width) in enumerate(
        zip(row, widths, strict=True))] for row in table]  # fmt: skip
    return ["", *("  " + "  ".join(row).rstrip() for row in aligned)]


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "" if value is None else _short(value)


def _probes_as_text(probes: dict[str, Any]) -> list[str]:
    """The table of the probes, with what they were trained on."""
    from smalti.evaluation.catalogue import format_metric

    majority = format_metric("majority_accuracy", probes["majority_accuracy"])
    counts = f"{probes['num_train']} training and {probes['num_test']} test images"
    lines = [f"probes of the {probes['num_labels']} labels {probes['label']!r}, {counts}, the commonest: {majority}"]
    lines.append(f"  {'representation':<16}{'dims':>6}{'linear':>16}{str(probes['k']) + ' nearest':>16}")
    for row in probes["rows"]:
        cells = [
            f"{format_metric(f'{kind}_accuracy', row[f'{kind}_accuracy'])} +- {row[f'{kind}_standard_error']:.1%}"
            for kind in ("linear", "knn")
        ]
        lines.append(f"  {row['representation']:<16}{row['dims']:>6}" + "".join(f"{cell:>16}" for cell in cells))
    return lines + [f"  no {name}: {why}" for name, why in probes["left_out"].items()]


def _short(value: Any) -> str:
    from smalti.evaluation.catalogue import format_number

    if isinstance(value, list):
        return (" x " if all(isinstance(item, int) for item in value) else ", ").join(map(str, value))
    return format_number(value) if isinstance(value, float) else str(value)
