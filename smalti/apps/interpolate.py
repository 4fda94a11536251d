"""The verb `interpolate`: walks through the latents, from image to image or along each dimension."""

from pathlib import Path
from typing import Any

from smalti.apps.outfiles import new_file
from smalti.apps.runs import data_of
from smalti.configs import effective
from smalti.errors import SmaltiError
from smalti.files import atomic_path

IMAGES = 512  # for the activity of the latents


def interpolate(
    run: str,
    images: list[str],
    *,
    out: str = "interpolation.png",
    steps: int | None = None,
    traverse: bool = False,
    rows: int | None = None,
    data: str | None = None,
    force: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Walk through the latents from image to image, or with --traverse along each dimension: one sheet.

    Args:
        run: the folder of a trained model of any kind, or owner/name on the hub.
        images: two or more, a row for each two in sequence; with --traverse one. Files, whose centre squares are
            resized to the model's image size; or DATA:NUMBER, as emoji:12, for one of the test split of a data set.
        out: the PNG.
        steps: pictures on the way, with both ends; 8, or 7 with --traverse.
        traverse: of a VAE, show what each active channel of the latents does to an image, from -3 to 3 standard
            deviations of p(z); inactive ones are left out and counted.
        rows: with --traverse, at most this many channels, the most active ones; 32 by default.
        data: with --traverse, the images whose variance says which channels are active; by default those that the model
            was trained on.
        force: overwrite the PNG.
        device: cpu, cuda, ...
    """
    from smalti.apps.imagefiles import fitted
    from smalti.models.autoencoder import Autoencoder
    from smalti.reports.latent_walks import interpolation_sheet

    new_file(out, force, ".png")
    chosen = effective(traverse, "without --traverse", data=(data, None), rows=(rows, 32))
    model = Autoencoder.from_pretrained(run, device=device)
    if traverse:
        return _traverse(model, run, images, out, 7 if steps is None else steps, chosen["rows"], data)
    if len(images) < 2:
        raise SmaltiError(f"an interpolation needs two images or more, not only {images[0]}; or give --traverse")
    names = [Path(image).stem for image in images]
    steps = 8 if steps is None else steps
    sheet = interpolation_sheet(model, fitted(images, model.config.preprocessing), names, steps)
    with atomic_path(out) as temporary:
        sheet.save(temporary, "PNG")
    return {"written": out, "steps": steps}


def _traverse(
    model: Any, run: str, images: list[str], out: str, steps: int, rows: int, data: str | None
) -> dict[str, Any]:
    """The sheet of a traversal around one image."""
    from smalti.apps.imagefiles import fitted
    from smalti.data.batches import some_images
    from smalti.evaluation.latents import latent_statistics
    from smalti.models.bottlenecks import GaussianPosterior
    from smalti.reports.latent_walks import traversal_sheet

    if not isinstance(model.bottleneck, GaussianPosterior):
        raise SmaltiError(
            "a traversal is along the dimensions of a Gaussian q(z|x), and this model has none; give a vae"
        )
    if len(images) != 1:
        raise SmaltiError(f"a traversal is around one image, not {len(images)}; give one")
    source = data_of(run, data)
    preprocessing = model.config.preprocessing
    activity = latent_statistics(model, some_images(source, "train", preprocessing, IMAGES)).activity.mean((1, 2))
    sheet, active = traversal_sheet(model, fitted(images, preprocessing), activity.cpu(), steps, rows)
    with atomic_path(out) as temporary:
        sheet.save(temporary, "PNG")
    return {"written": out, "steps": steps, "active_channels": active, "channels": len(activity)}
