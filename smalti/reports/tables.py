"""One table of several runs from their evaluations, as Markdown, CSV, HTML and records.

Only runs that were measured alike stand in one table: of one kind (autoencoders, priors), on the same data, split,
images and preprocessing, priors on the codes of one tokenizer. The others get tables of their own, and a line says why.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smalti.configs import differences, nearest
from smalti.errors import SmaltiError
from smalti.evaluation.catalogue import METRICS, describe, format_metric, format_number, heading
from smalti.images.preprocessing import Preprocessing, size_in_words
from smalti.reports import html

CONDITIONS = ("data", "fingerprint", "split", "num_images", "preprocessing", "importance_samples", "tokenizer_hash")
SPECIAL = re.compile(r"[\\`*|<>]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])")  # in Markdown; not _ within a word
HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # shown by its first 12 digits
NONE = "-"


@dataclass(frozen=True)
class Row:
    """A run in a table.

    Attributes:
        name: as shown.
        evaluation: what `evaluate` gave: data, split, num_images, metrics; "spread" (standard errors) and "originals"
            (the metrics of the originals themselves) where it has them.
        about: further columns, such as num_parameters.
        run: its folder.
    """

    name: str
    evaluation: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""

    @property
    def kind(self) -> str:
        """The runs of one kind have metrics of one meaning: "prior" or "autoencoder"."""
        return "prior" if "tokenizer_hash" in self.evaluation else "autoencoder"

    @property
    def conditions(self) -> dict[str, Any]:
        """What must be the same for two runs to be compared, as far as the evaluation says it."""
        found = {key: self.evaluation[key] for key in CONDITIONS if self.evaluation.get(key) is not None}
        if not found.get("importance_samples"):  # none were taken, so no metric depends on their number
            found.pop("importance_samples", None)
        found |= {f"network {name}": about for name, about in (self.evaluation.get("networks") or {}).items()}
        return found

    def numbers(self, part: str = "metrics") -> dict[str, float]:
        """The metrics, their "spread" or the "originals", as far as they are numbers."""
        values = self.evaluation.get(part) or {}
        return {name: value for name, value in values.items() if type(value) in (int, float)}


class _Layout(NamedTuple):
    """A table as text."""

    header: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]  # (row, column)


def metric_names(rows: Sequence[Row], wanted: Sequence[str] = ()) -> list[str]:
    """The metrics that occur, in the catalogue's order, then those that it does not know; or those of them wanted.

    Raises:
        SmaltiError: a wanted metric does not exist, or no run has it.
    """
    occur = dict.fromkeys(name for row in rows for name in row.numbers())
    for name in wanted:
        if name not in occur and name in METRICS:
            raise SmaltiError(f"no run has {name}; measured are {', '.join(occur)}")
        if name not in occur:
            raise SmaltiError(f"unknown metric {name!r}; {nearest(name, {**METRICS, **occur})}")
    return [name for name in {**METRICS, **occur} if name in (wanted or occur)]


def measured_alike(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows in groups that may stand in one table, in the order of their first."""
    groups: list[list[Row]] = []
    for row in rows:
        own = next((group for group in groups if all(_alike(row, other) for other in group)), None)
        if own is None:
            groups.append([row])
        else:
            own.append(row)
    return groups


def _alike(row: Row, other: Row) -> bool:
    return row.kind == other.kind and not _unlike(row, other)


def _unlike(row: Row, other: Row) -> list[str]:
    """The conditions in which two runs differ; what one of them does not say is no difference."""
    ours, theirs = row.conditions, other.conditions
    both = [key for key in ours if key in theirs]
    if "fingerprint" in both:  # the same images under two names are the same; a name tells more than a hash
        same = ours["fingerprint"] == theirs["fingerprint"]
        named = any(ours[key] != theirs[key] for key in ("data", "split") if key in both)
        both = [key for key in both if key != ("data" if same else "fingerprint" if named else "")]
    lines = differences({key: ours[key] for key in both}, {key: theirs[key] for key in both})
    return [_short(line.replace(" -> ", " against ")) for line in lines]


def _short(text: str) -> str:
    return HASH.sub(r"\1", text)


def notes(rows: Sequence[Row]) -> list[str]:
    """A line for each table after the first of its kind: which runs are not to be compared, and why."""
    lines, first = [], {}
    for group in measured_alike(rows):
        reference = first.setdefault(group[0].kind, group)
        if reference is not group:
            one, other = (", ".join(row.name for row in part) for part in (reference, group))
            why = next(found for row in reference if (found := _unlike(row, group[0])))
            lines.append(f"Not to be compared: {one} and {other}, measured on different {'; '.join(why)}.")
    return lines


def measured_on(row: Row) -> str:
    """What a run was measured on, and with it the others of its table."""
    text = "{num_images} images of the {split} split of {data}".format_map(row.evaluation)
    if preprocessing := row.evaluation.get("preprocessing"):
        named = ("channels", "value_range")
        seen = Preprocessing(**{name: preprocessing[name] for name in named if name in preprocessing})
        text += f", {size_in_words(preprocessing['image_size'])}, {seen.kind}"
    if tokenizer := row.evaluation.get("tokenizer_hash"):
        text += f", codes of the tokenizer {_short(tokenizer)}"
    return text


def _caption(group: Sequence[Row]) -> str:
    spread = "; ± is the standard error" if any(row.numbers("spread") for row in group) else ""
    return f"{measured_on(group[0])}{spread}."


def _lay_out(group: Sequence[Row], metrics: Sequence[str], what: str) -> _Layout:
    """The text of one table; the best of a column is known among at least two runs."""
    names = [name for name in metrics if any(name in row.numbers() for row in group)]
    keys = dict.fromkeys(key for row in group for key in row.about)
    about = [key for key in keys if any(row.about.get(key) is not None for row in group)]
    originals: dict[str, set[str]] = {name: set() for name in names}
    for row in group:
        for name, value in row.numbers("originals").items():
            if name in originals:
                originals[name].add(format_metric(name, value))
    rows = [
        [
            row.name,
            *(_cell(row, name, len(originals[name]) > 1) for name in names),
            *(_about(row.about.get(key)) for key in about),
        ]
        for row in group
    ]
    best = {(index, column) for column, name in enumerate(names, 1) for index in _best(group, name)}
    shown = [next(iter(originals[name])) if len(originals[name]) == 1 else NONE for name in names]
    if any(text != NONE for text in shown):
        rows.insert(0, ["originals", *shown, *[NONE] * len(about)])
        best = {(index + 1, column) for index, column in best}
    labels = [key.removeprefix("num_").replace("_", " ") for key in about]
    return _Layout([what, *map(heading, names), *labels], rows, best)


def _cell(row: Row, name: str, with_originals: bool) -> str:
    value, original = row.numbers().get(name), row.numbers("originals").get(name)
    if value is None:
        return NONE
    beside = f" (originals {format_metric(name, original)})" if with_originals and original is not None else ""
    return format_metric(name, value, row.numbers("spread").get(name)) + beside


def _about(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value)
    return NONE if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _best(group: Sequence[Row], name: str) -> list[int]:
    """The places of the best, or of those nearest the originals; of several that look the same all, unless all do."""
    distances: dict[int, float] = {}
    for index, row in enumerate(group):
        value, original = row.numbers().get(name), row.numbers("originals").get(name)
        if value is None or math.isnan(value):
            continue
        if better := describe(name).better:
            distances[index] = -value if better == "higher" else value
        elif original and value > 0:
            distances[index] = abs(math.log(value / original))
    looks = {index: format_metric(name, group[index].numbers()[name]) for index in distances}
    if len(set(looks.values())) < 2:
        return []
    best = looks[min(distances, key=distances.__getitem__)]
    return [index for index, text in looks.items() if text == best]


# ------------------------------------------------------------------ forms


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def markdown_text(text: str) -> str:
    """Text as Markdown, in a cell of a table too."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def as_markdown(rows: Sequence[Row], metrics: Sequence[str] = (), what: str = "run") -> str:
    """The tables of the rows; the best of a column, or what is nearest the originals, is bold.

    Args:
        rows: the runs.
        metrics: those to show; all that occur by default.
        what: heads the first column.

    Raises:
        SmaltiError: see `metric_names`.
    """
    names, parts = metric_names(rows, metrics), []
    for group in measured_alike(rows):
        layout = _lay_out(group, names, what)
        cells = [
            [
                f"**{text}**" if (row, column) in layout.best else markdown_text(text)
                for column, text in enumerate(texts)
            ]
            for row, texts in enumerate(layout.rows)
        ]
        parts += [
            "\n".join(markdown_table([*map(markdown_text, layout.header)], cells)),
            markdown_text(_caption(group)),
        ]
    return "\n\n".join([*parts, *map(markdown_text, notes(rows))])


def as_html(rows: Sequence[Row], metrics: Sequence[str] = (), what: str = "run") -> str:
    """The same as HTML."""
    names, parts = metric_names(rows, metrics), []
    for group in measured_alike(rows):
        layout = _lay_out(group, names, what)
        header = [
            text.replace(" ↑", "\N{NO-BREAK SPACE}↑").replace(" ↓", "\N{NO-BREAK SPACE}↓") for text in layout.header
        ]
        parts += [html.table(header, layout.rows, layout.best), f"<p>{html.escape(_caption(group))}</p>"]
    return "\n".join([*parts, *(f'<p class="flag">{html.escape(line)}</p>' for line in notes(rows))])


def meanings(rows: Sequence[Row], metrics: Sequence[str] = ()) -> str:
    """One sentence on each metric that the table shows, as an HTML list."""
    items = [
        f"<li><b>{html.escape(heading(name))}</b> ({html.escape(name)}): {html.escape(describe(name).meaning)}</li>"
        for name in metric_names(rows, metrics)
        if name in METRICS
    ]
    return f"<ul>{''.join(items)}</ul>"


def as_records(rows: Sequence[Row], metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One flat record a run with the same keys, numbers in full: None where a run lacks one."""
    names = metric_names(rows, metrics)
    about = dict.fromkeys(key for row in rows for key in row.about)
    records = []
    for row in rows:
        record = {"name": row.name, "run": row.run, "kind": row.kind}
        record |= {key: row.evaluation.get(key) for key in ("data", "split", "num_images", "model_hash")}
        preprocessing = row.evaluation.get("preprocessing") or {}
        record |= {key: preprocessing.get(key) for key in ("image_size", "channels")}
        record |= {key: row.about.get(key) for key in about} | {name: row.numbers().get(name) for name in names}
        for part in ("spread", "originals"):
            have = [name for name in names if any(name in one.numbers(part) for one in rows)]
            record |= {f"{name}_{part}": row.numbers(part).get(name) for name in have}
        records.append(record)
    return records


def as_csv(rows: Sequence[Row], metrics: Sequence[str] = ()) -> str:
    """`as_records` with a header of their keys; what a run lacks is empty."""
    records, file = as_records(rows, metrics), io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def metric_texts(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Every metric of one evaluation as it is written, with its spread and the originals' value, by name."""
    row = Row("", evaluation)
    return {name: _cell(row, name, True) for name in metric_names([row])}
