"""The pictures of a trained tokenizer and a short page that shows them: RUN/demo.html, nothing loaded from outside."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.errors import SmaltiError
from smalti.evaluate.autoencoders import count_codes
from smalti.evaluate.card import format_number
from smalti.evaluate.drawings import Drawn
from smalti.files import atomic_path, write_text
from smalti.models.autoencoder import Autoencoder
from smalti.pictures import before_after, grid
from smalti.pixels import to_float
from smalti.train.log import read_metrics

SHOWN_IMAGES, COLUMNS = 64, 16
TILE_GRID = 3  # a code is shown as the middle of a 3x3 grid of itself
INK, ACCENT = "#222222", "#c2410c"


def codebook_tiles(model: Autoencoder, order: Sequence[int], columns: int = 32, zoom: int = 6) -> Image.Image:
    """Every code as a tile: what the decoder draws for a grid of that code alone, its middle stride x stride pixels.

    Args:
        model: with a codebook.
        order: the codes in the order in which to show them.
        columns: tiles in a row.
        zoom: size of a pixel.
    """
    codes = torch.as_tensor(order).view(-1, 1, 1).expand(-1, TILE_GRID, TILE_GRID)
    images = torch.cat([model.decode(part).cpu() for part in codes.split(256)])
    start, size = (TILE_GRID // 2) * model.stride, model.stride
    return grid(images[:, :, start : start + size, start : start + size], columns, zoom, "#cccccc")


def reconstructions(model: Autoencoder, data: str, split: str = "test") -> Image.Image:
    """Images of a split, evenly chosen, above their reconstructions."""
    source = open_data(data, split)  # pyright: ignore[reportArgumentType]
    preprocessing = model.config.preprocessing
    pixels = Pixels(source, preprocessing.image_size, preprocessing.channels, memory_bytes=0)
    images = to_float(pixels.evenly(SHOWN_IMAGES))
    return before_after(images, model.reconstruct(images).cpu(), COLUMNS)


def _figure(draw: Any) -> str:
    """An SVG drawn by `draw(axes)` with matplotlib."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SmaltiError("the charts need matplotlib: pip install 'smalti[metrics]'") from error
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def usage_chart(counts: Tensor) -> str:
    """SVG: how often each code is used, most frequent first, against the uniform share."""
    share = (counts.double() / counts.sum()).sort(descending=True).values * len(counts)

    def draw(axes: Any) -> None:
        axes.bar(range(len(share)), share.tolist(), width=1.0, color=ACCENT)
        axes.axhline(1.0, color=INK, linewidth=0.8)
        axes.set_xlim(-0.5, len(share) - 0.5)
        axes.set_xlabel("code, most frequent first")
        axes.set_ylabel("times uniform")
        axes.set_yscale("symlog", linthresh=1.0)

    return _figure(draw)


def learning_chart(records: Sequence[Mapping[str, float]], name: str, label: str) -> str:
    """SVG: one term of metrics.jsonl over the steps."""
    points = [(record["step"], record[name]) for record in records if name in record]

    def draw(axes: Any) -> None:
        axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.5)
        axes.set_xlabel("step")
        axes.set_ylabel(label)

    return _figure(draw)


def write_page(
    run: Path,
    model: Autoencoder,
    data: str,
    evaluation: Mapping[str, Any],
    *,
    drawn: Sequence[Drawn] = (),
    prior: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw a run's pictures and the page that shows them.

    Args:
        run: the run's folder.
        model: its model, with a codebook.
        data: the data set it was evaluated on.
        evaluation: what `evaluate` gave.
        drawn: what a prior drew from text, if there is one.
        prior: that prior's evaluation.

    Returns:
        What was written, the page first.
    """
    counts = count_codes(model, open_data(data, evaluation["split"]))[0]  # a demo's model has one codebook
    order = counts.argsort(descending=True).tolist()
    records = read_metrics(run / "metrics.jsonl")
    pictures = {
        "reconstructions.png": reconstructions(model, data, evaluation["split"]),
        "codebook.png": codebook_tiles(model, order),
    }
    charts = {
        "usage.svg": usage_chart(counts),
        "distortion.svg": learning_chart(records, "distortion_nats", "distortion, nats"),
        "learning_usage.svg": learning_chart(records, "usage", "usage"),
    }
    for name, picture in pictures.items():
        with atomic_path(run / name) as path:
            picture.save(path)
    for name, chart in charts.items():
        write_text(run / name, chart)
    page = run / "demo.html"
    write_text(page, _page(run, pictures, charts, counts, evaluation, _drawings(drawn, prior) if prior else ""))
    return [page, *(run / name for name in [*pictures, *charts])]


def _page(
    run: Path,
    pictures: Mapping[str, Image.Image],
    charts: Mapping[str, str],
    counts: Tensor,
    evaluation: Mapping[str, Any],
    drawings: str,
) -> str:
    metrics = evaluation["metrics"]
    rows = "".join(f"<tr><td>{name}</td><td>{format_number(value)}</td></tr>" for name, value in metrics.items())
    used = int((counts > 0).sum())
    image = {name: f'<img src="{_data_url(picture)}" alt="{name}">' for name, picture in pictures.items()}
    svg = {name: chart[chart.index("<svg") :] for name, chart in charts.items()}
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>smalti: {html.escape(str(run))}</title>
<link rel="icon" href="data:,">
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; color: {INK}; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
  h1 {{ font-size: 1.6rem; margin-bottom: 0; }}  h2 {{ font-size: 1.1rem; margin: 2.2rem 0 0.4rem; }}
  p {{ margin: 0.3rem 0 0.8rem; max-width: 46rem; }}
  img {{ max-width: 100%; image-rendering: pixelated; }}
  svg {{ max-width: 100%; height: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  .row {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
  figure {{ margin: 0; }}  figcaption {{ font-size: 0.85rem; max-width: 17rem; }}
  td {{ padding: 0.1rem 1.2rem 0.1rem 0; border-bottom: 1px solid #ddd; }}
</style>
<h1>What the tokenizer learnt</h1>
<p>{evaluation["num_images"]} images of the {evaluation["split"]} split of {html.escape(evaluation["data"])}, none
of them seen in training. Model {evaluation["model_hash"][:12]}, smalti {evaluation["smalti"]}.</p>
<h2>Reconstructions</h2>
<p>Each pair of rows: originals above, below what the decoder makes of their codes
({metrics["psnr_db"]:.2f} dB, {metrics["nominal_bits_per_pixel"]:.3f} bits per pixel).</p>
{image["reconstructions.png"]}
<h2>The codebook</h2>
<p>What each of the {len(counts)} codes draws, surrounded by itself; most frequent first.</p>
{image["codebook.png"]}
<h2>Use of the codes</h2>
<p>{used} of {len(counts)} codes occur in this split; perplexity {metrics["perplexity"]:.0f}.
The line is the share that every code would have if all were used alike.</p>
{svg["usage.svg"]}
<h2>Learning</h2>
{svg["distortion.svg"]}
{svg["learning_usage.svg"]}
{drawings}
<h2>All numbers</h2>
<table>{rows}</table>
</html>
"""


def _drawings(drawn: Sequence[Drawn], prior: Mapping[str, Any]) -> str:
    """The part of the page about text to image."""
    metrics, parts = prior["metrics"], []
    for group in drawn:
        figures = "".join(
            f'<figure><img src="{_data_url(grid(images, len(images), 2))}" alt="">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, images in zip(group.captions, group.images, strict=True)
        )
        parts.append(f'<p>{group.title}:</p>\n<div class="row">{figures}</div>')
    return f"""<h2>Text to image</h2>
<p>A transformer has learnt which codes follow a caption: {metrics["bits_per_code"]:.2f} bits a code on held-out images,
where codes counted position by position cost {metrics["histogram_bits_per_code"]:.2f} and codes of a fixed length
{metrics["uniform_bits_per_code"]:.2f}. Each caption is drawn {drawn[0].images.shape[1]} times.</p>
{"".join(parts)}
"""


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
