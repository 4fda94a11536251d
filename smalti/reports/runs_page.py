"""The page of `smalti report`: the tables of several runs, the same images from each, the metrics' meaning."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from smalti.configs import from_dict
from smalti.data.batches import some_images
from smalti.data.config import DataConfig
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.evaluation.catalogue import format_metric, heading
from smalti.images.contact_sheets import grid, whole_zoom
from smalti.models.autoencoder import Autoencoder
from smalti.reports import html
from smalti.reports.tables import Row, as_html, meanings, measured_alike, measured_on

SHOWN_PX = 128  # smaller images are enlarged by a whole number, up to about this
SAID = "psnr_db"  # beside a run's pictures


class Sheet(NamedTuple):
    """The same images from the runs of one table."""

    group: Sequence[Row]
    rows: Mapping[str, Tensor]  # the originals, then each run's reconstructions, (B, C, H, W)

    def picture(self) -> Image.Image:
        """All of it, a row each, each pixel a square of whole screen pixels."""
        images = torch.cat(list(self.rows.values()))
        return grid(images, len(images) // len(self.rows), whole_zoom(images, SHOWN_PX))


def sheets(rows: Sequence[Row], models: Mapping[str, Autoencoder], count: int) -> list[Sheet]:
    """A sheet for each table with autoencoders.

    Args:
        rows: the runs.
        models: the autoencoders among them, by the names of their rows.
        count: images of the split, evenly spaced; 0 gives no sheets.

    Raises:
        SmaltiError: the data that the runs were measured on are not there any more.
    """
    shown = [[row for row in group if row.name in models] for group in measured_alike(rows)] if count else []
    return [Sheet(group, _rows(group, models, count)) for group in shown if group]


def _rows(group: Sequence[Row], models: Mapping[str, Autoencoder], count: int) -> dict[str, Tensor]:
    evaluation = group[0].evaluation
    data = evaluation.get("data_config")
    data = from_dict(DataConfig, data, "data_config") if data else evaluation["data"]
    try:
        if evaluation.get("fingerprint") not in (None, open_data(data, evaluation["split"]).fingerprint):
            raise SmaltiError(
                f"{data}: the images are no longer those that were measured; `smalti evaluate` them again"
            )
        images = some_images(data, evaluation["split"], models[group[0].name].config.preprocessing, count)
    except SmaltiError as error:
        raise SmaltiError(f"{error}; `--images 0` makes the report without pictures") from error
    return {"originals": images} | {row.name: models[row.name].reconstruct(images).cpu() for row in group}


def runs_page(rows: Sequence[Row], shown: Sequence[Sheet], metrics: Sequence[str] = ()) -> str:
    """The page.

    Args:
        rows: the runs.
        shown: pictures of them.
        metrics: those to show; all that occur by default.
    """
    parts = ["<h1>Runs</h1>", as_html(rows, metrics)]
    for sheet in shown:
        where = html.escape(measured_on(sheet.group[0]))
        parts.append(f"<h2>The same images</h2><p>Evenly spaced among {where}.</p>{_pictures(sheet)}")
    parts.append(f"<h2>What the columns say</h2>{meanings(rows, metrics)}")
    return html.document("smalti: runs", "\n".join(parts))


def _pictures(sheet: Sheet) -> str:
    said = {row.name: row.numbers().get(SAID) for row in sheet.group}
    figures = []
    for name, images in sheet.rows.items():
        value = said.get(name)
        beside = "" if value is None else f": {heading(SAID).split(',')[0]} {format_metric(SAID, value)} dB"
        figures.append(html.captioned_picture(grid(images, len(images), whole_zoom(images, SHOWN_PX)), name + beside))
    return f'<div class="wide sheet">{"".join(figures)}</div>'
