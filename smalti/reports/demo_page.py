"""The pictures of a trained tokenizer and RUN/demo.html, a self-contained page that shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.data.batches import some_images
from smalti.data.config import Data
from smalti.data.sources import open_data
from smalti.evaluation.autoencoders import count_codes
from smalti.evaluation.catalogue import describe, heading
from smalti.files import atomic_path, write_text
from smalti.images.contact_sheets import before_after, grid
from smalti.models.autoencoder import Autoencoder
from smalti.reports import html
from smalti.reports.caption_samples import CaptionSamples
from smalti.reports.charts import learning_chart, usage_chart
from smalti.reports.latent_pictures import codebook_tiles
from smalti.reports.tables import metric_texts
from smalti.training.log import read_metrics

SHOWN_IMAGES, COLUMNS = 64, 16


def write_page(
    run: Path,
    model: Autoencoder,
    data: Data,
    evaluation: Mapping[str, Any],
    *,
    samples: Sequence[CaptionSamples] = (),
    prior: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a run's pictures and the page that shows them.

    Args:
        run: the run's folder.
        model: its model, with a codebook.
        data: the data set it was evaluated on.
        evaluation: what `evaluate` gave.
        samples: of a prior with text, if there is one.
        prior: that prior's evaluation.

    Returns:
        What was written, the page first.
    """
    split, records = evaluation["split"], read_metrics(run / "metrics.jsonl")
    counts = count_codes(model, open_data(data, split))[0]  # a demo's model has one codebook
    images = some_images(data, split, model.config.preprocessing, SHOWN_IMAGES)
    pictures = {
        "reconstructions.png": before_after(images, model.reconstruct(images).cpu(), columns=COLUMNS),
        "codebook.png": codebook_tiles(model, counts.argsort(descending=True).tolist()),
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
    shown = {**{name: html.picture(picture, name) for name, picture in pictures.items()}, **charts}
    body = _body(shown, counts, evaluation, _samples(samples, prior) if prior else "")
    write_text(run / "demo.html", html.document(f"smalti: {run}", body))
    return [run / name for name in ("demo.html", *shown)]


def _body(shown: Mapping[str, str], counts: Tensor, evaluation: Mapping[str, Any], samples: str) -> str:
    said, used = metric_texts(evaluation), int((counts > 0).sum())
    numbers = html.table([], [(heading(name), text, describe(name).meaning) for name, text in said.items()])
    return f"""<h1>What the tokenizer learned</h1>
<p>{evaluation["num_images"]} images of the {evaluation["split"]} split of {html.escape(evaluation["data"])}, none
of them seen in training. Model {evaluation["model_hash"][:12]}, smalti {evaluation["smalti"]}.</p>
<h2>Reconstructions</h2>
<p>Each pair of rows: originals above, reconstructions from their codes below
({said["psnr_db"]} dB, {said["nominal_bits_per_pixel"]} bits per pixel).</p>
{shown["reconstructions.png"]}
<h2>The codebook</h2>
<p>What each of the {len(counts)} codes decodes to, surrounded by itself; most frequent first.</p>
{shown["codebook.png"]}
<h2>Use of the codes</h2>
<p>{used} of {len(counts)} codes occur in this split; perplexity {said["perplexity"]}.
The line is the uniform share.</p>
{shown["usage.svg"]}
<h2>Learning</h2>
{shown["distortion.svg"]}
{shown["learning_usage.svg"]}
{samples}
<h2>All numbers</h2>
{numbers}"""


def _samples(samples: Sequence[CaptionSamples], prior: Mapping[str, Any]) -> str:
    """The part of the page about text to image."""
    said, parts = metric_texts(prior), []
    for group in samples:
        shown = zip(group.images, group.captions, strict=True)
        figures = [html.captioned_picture(grid(images, len(images), 2), caption) for images, caption in shown]
        parts.append(f"<p>{group.title}:</p>\n{html.row(figures)}")
    return f"""<h2>Text to image</h2>
<p>A transformer has learned which codes follow a caption: {said["bits_per_code"]} bits a code on held-out
images, against {said["histogram_bits_per_code"]} for a histogram at each position and a fixed length of
{said["uniform_bits_per_code"]}. {samples[0].images.shape[1]} samples of each caption.</p>
{"".join(parts)}
"""
