"""The page of `smalti report`: the tables of several runs, the same images from each, the metrics' meaning."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from smalti.data.batches import some_images
from smalti.errors import SmaltiError
from smalti.evaluation.catalogue import format_metric, heading
from smalti.images.contact_sheets import grid
from smalti.models.autoencoder import Autoencoder
from smalti.reports import html
from smalti.reports.tables import Row, as_html, meanings, measured_alike, measured_on

SHOWN_PX = 128  # smaller images are enlarged by a whole number, up to about this
SAID = "psnr_db"  # beside a run's pictures


def runs_page(rows: Sequence[Row], models: Mapping[str, Autoencoder], count: int, metrics: Sequence[str] = ()) -> str:
    """The page.

    Args:
        rows: the runs.
        models: the autoencoders among them, by the names of their rows.
        count: images of the split to show, evenly spaced; 0 shows none.
        metrics: those to show; all that occur by default.

    Raises:
        SmaltiError: the data that the runs were measured on are not there any more.
    """
    parts = ["<h1>Runs</h1>", as_html(rows, metrics)]
    shown = [[row for row in group if row.name in models] for group in measured_alike(rows)] if count else []
    for group in filter(None, shown):
        parts.append(f"<h2>The same images</h2><p>Evenly spaced among {html.escape(measured_on(group[0]))}.</p>")
        parts.append(_pictures(group, models, count))
    parts.append(f"<h2>What the columns say</h2>{meanings(rows, metrics)}")
    return html.document("smalti: runs", "\n".join(parts))


def _pictures(group: Sequence[Row], models: Mapping[str, Autoencoder], count: int) -> str:
    """The originals, then a row of reconstructions for each run."""
    evaluation = group[0].evaluation
    try:
        images = some_images(evaluation["data"], evaluation["split"], models[group[0].name].config.preprocessing, count)
    except SmaltiError as error:
        raise SmaltiError(f"{error}; `--images 0` makes the report without pictures") from error
    sheet = [_enlarged(images, "originals")]
    for row in group:
        value = row.numbers().get(SAID)
        said = "" if value is None else f": {heading(SAID).split(',')[0]} {format_metric(SAID, value)} dB"
        sheet.append(_enlarged(models[row.name].reconstruct(images).cpu(), row.name + said))
    return f'<div class="wide sheet">{"".join(sheet)}</div>'


def _enlarged(images: Tensor, text: str) -> str:
    """A row of images, each pixel a square of whole screen pixels."""
    return html.captioned_picture(grid(images, len(images), max(1, SHOWN_PX // images.shape[-1])), text)
