"""The verb `evaluate`."""

from pathlib import Path
from typing import Any

from smalti.apps.runs import best_of, data_of, experiment_of, what_is
from smalti.configs import effective
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.files import CARD, write_json, write_text
from smalti.images.preprocessing import Noise, asked_noise


def evaluate(
    run: str,
    data: str | None = None,
    *,
    split: Split = "test",
    image_size: str | None = None,
    batch_size: int = 64,
    importance_samples: int = 0,
    distances: str | None = None,
    samples: int = 0,
    noise: Noise = "none",
    noise_patch: int | None = None,
    probe: str = "",
    probe_images: int | None = None,
    tokenizer: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure a model on a whole split; writes RUN/evaluation.json and the model card.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        data: emoji, a folder of images or of idx files, or *.parquet; by default what the run was trained on, with
            its validation and test images. A model from the hub needs it.
        split: train, validation, test or all.
        image_size: of an autoencoder, the size of the images instead of that of the training, as 256 or 16x32; or
            original: every image at its own size, whatever that is, one at a time.
        batch_size: images at a time; changes no number.
        importance_samples: of an autoencoder, samples per image for an estimate of -log p(x); 0 leaves it out.
        distances: by which networks, with commas: effnet (the default where it is installed), inception (FID and KID by
            torch-fidelity), lpips; or none.
        samples: images to sample from a prior, or from p(z) of an autoencoder, whose distance to the data is measured;
            0 leaves it out.
        noise: of an autoencoder: gaussian, salt_and_pepper or masking, for a curve of PSNR and SSIM of noisy and
            restored images over its levels, beside classical filters; also written as RUN/denoising.svg.
        noise_patch: of masking, the side of the masked squares, in pixels; by default as the model was trained, or 1.
        probe: of an autoencoder, the kind of label (class, group, ...) that a linear and a nearest-neighbour classifier
            learn to tell from its latents and codes, beside pixels and PCA; needs scikit-learn.
        probe_images: of the training split, evenly spread, for the probes; by default 10,000.
        tokenizer: of a prior: where its tokenizer is now; by default where the prior says.
        device: cpu, cuda, ...
    """
    from smalti.apps.output import say
    from smalti.data.sources import open_data
    from smalti.evaluation.perception import chosen_networks
    from smalti.images.folders import sentence

    _check_counts(batch_size=(batch_size, 1), importance_samples=(importance_samples, 0), samples=(samples, 0),
                  probe_images=(probe_images, 1))  # fmt: skip
    folder, is_prior, measured = Path(run), what_is(run) == "prior", data_of(run, data)
    own = effective(not is_prior, "on a prior", importance_samples=(importance_samples or None, 0))
    own |= effective(not is_prior, "on a prior", image_size=(image_size, None))
    more = {"noise": None if noise == "none" else noise, "noise_patch": noise_patch, "probe": probe or None}
    effective(not is_prior, "on a prior", **{name: (value, None) for name, value in more.items()})
    effective(image_size is None, "with --image_size", **{name: (value, None) for name, value in more.items()})
    effective(is_prior, "on an autoencoder", tokenizer=(tokenizer, None))
    probing = effective(bool(probe), "without --probe", num_images=(probe_images, 10_000))
    effective(not is_prior or samples > 0, "on a prior without samples", distances=(distances, None))
    networks = chosen_networks(distances, device) if samples or not is_prior else {}
    if told := sentence(open_data(measured, split).left_out):
        say(told)
    shared: dict[str, Any] = {"batch_size": batch_size, "networks": networks, "samples": samples, "progress": True}
    if is_prior:
        from smalti.evaluation.priors import evaluate_prior
        from smalti.priors.code_model import CodeModel

        model = CodeModel.from_pretrained(run, device=device).use_tokenizer(tokenizer)
        cache = folder if folder.is_dir() else None
        result = evaluate_prior(model, measured, split, cache=cache, **shared)
    else:
        from smalti.evaluation.autoencoders import evaluate as measure
        from smalti.models.autoencoder import Autoencoder

        model = Autoencoder.from_pretrained(run, device=device)
        corruption = asked_noise(model.config.corruption, noise, noise_patch=noise_patch)
        first: dict[str, Any] = {}  # what may be refused
        if probe:
            from smalti.evaluation.probes import probe as measure_probes

            first["probes"] = measure_probes(model, measured, split, probe, **probing)
        if noise != "none":
            from smalti.evaluation.denoising import denoising

            first["denoising"] = denoising(model, measured, split, corruption, progress=True)
        result = measure(model, measured, split, **shared, **own) | first
    if folder.is_dir():  # a model from the hub has none
        from smalti.reports.model_card import model_card

        write_json(folder / "evaluation.json", result)
        _write_chart(folder / "denoising.svg", result.get("denoising"))
        if experiment := experiment_of(folder):
            write_text(folder / CARD, model_card(model, experiment, result, best=best_of(folder)))
    return result


def _check_counts(**counts: tuple[int | None, int]) -> None:
    for name, (value, least) in counts.items():
        if value is not None and value < least:
            raise SmaltiError(f"--{name} must be at least {least}, not {value}")


def _write_chart(path: Path, denoising: dict[str, Any] | None) -> None:
    """The curve of denoising; where there is none, that of an evaluation before goes too."""
    from smalti.apps.output import say
    from smalti.reports.charts import denoising_chart

    if denoising is None:
        path.unlink(missing_ok=True)
        return
    try:
        write_text(path, denoising_chart(denoising))
    except SmaltiError as error:  # no matplotlib; the numbers are worth keeping without it
        say(f"smalti: {path.name} is left out: {error}")
