"""The verb `estimators`: bias and variance of gradient estimators, measured against the exact gradient."""

from pathlib import Path
from typing import Any

from smalti.apps.output import say
from smalti.apps.runs import data_of
from smalti.apps.train import train
from smalti.configs import effective
from smalti.errors import SmaltiError
from smalti.files import write_json, write_text

EXPLANATION = """Each curve is one estimator of the gradient of the expected distortion in the logits of a
categorical model, compared with the exact gradient, which is a sum over all latent states. Bias is the distance of
the mean of many samples from the exact gradient, deviation the spread of one sample, both in units of the exact
gradient's length. A high temperature makes the gradient of Gumbel-Softmax smooth and wrong, a low one right and
noisy. Gumbel-Rao has the bias of straight-through Gumbel-Softmax and less noise. ReinMax is right to second order
at temperature 1. REINFORCE has no bias: what is seen is the error of a finite mean. Its baseline here is the mean
over other samples for the same image; in training it is the mean over other images, which leaves more noise."""


def estimators(
    *,
    out: str,
    run: str | None = None,
    data: str | None = None,
    num_images: int = 8,
    draws: int = 1024,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """Bias, variance and cosine of every gradient estimator against the exact gradient, over temperature.

    Args:
        out: the folder for estimators.html and estimators.json.
        run: the folder of a trained model with a categorical bottleneck of few states, for example a run of
            `mnist_categorical`; by default a small one is trained first, into OUT/model.
        data: what the images are taken from; by default what the run was trained on, which without a run is emoji.
        num_images: images over which to average.
        draws: samples of each estimator, for each image.
        seed: of everything random.
        **settings: of the training of the small model, see `RunSettings`; by default those of `emoji_categorical`.
    """
    from smalti.data.batches import some_images
    from smalti.evaluation.estimators import study
    from smalti.models.autoencoder import Autoencoder
    from smalti.reports import html
    from smalti.reports.charts import curves, panels

    for name, value in (("num_images", num_images), ("draws", draws)):
        if value < 2:
            raise SmaltiError(f"{name} must be at least 2, not {value}")
    effective(run is None, "on a run that is trained already", **{k: (v, None) for k, v in settings.items()})
    if run is None:
        from smalti.recipes import emoji_categorical

        run = str(Path(out) / "model")
        data = data or "emoji"
        say(f"training a model with 8 x 4 latent states on {data} into {run}")
        train(emoji_categorical(data=data), run, seed=seed, **settings)
    model, measured = Autoencoder.from_pretrained(run), data_of(run, data)
    images = some_images(measured, "test", model.config.preprocessing, num_images)
    results = study(model, images, draws=draws, seed=seed, progress=True)

    plots = []
    for field, log in (("bias", True), ("deviation", True), ("cosine", False)):
        lines: dict[str, list[tuple[float, float]]] = {}
        for one in results:
            lines.setdefault(one.estimator, []).append((one.temperature, getattr(one, field)))
        plots.append(curves(lines, "temperature", field, log_x=True, log_y=log, legend=field == "bias"))
    header = ["estimator", "temperature", "bias", "deviation", "cosine of the mean", "cosine of one sample"]
    rows = [[one.estimator, f"{one.temperature:g}", *(f"{value:.3f}" for value in one[2:])] for one in results]
    body = (
        f"<h1>Gradient estimators</h1><p>{html.escape(EXPLANATION)}</p><p>{html.escape(run)}, {num_images} images, "
        f"{draws} samples each.</p>{panels(plots, 12.0, 3.6)}<h2>All numbers</h2>{html.table(header, rows)}"
    )
    page, values = Path(out) / "estimators.html", Path(out) / "estimators.json"
    write_json(values, {"run": run, "data": str(measured), "num_images": num_images, "draws": draws,
                        "results": [one._asdict() for one in results]})  # fmt: skip
    write_text(page, html.document("smalti: gradient estimators", body))
    best = min(results, key=lambda one: one.bias)
    return {"written": [str(page), str(values)], "least_bias": f"{best.estimator} at {best.temperature:g}"}
