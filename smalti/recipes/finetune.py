"""Any autoencoder trained further, on other images: networks, bottleneck and likelihood are those of the model.

    smalti convert vqgan.ckpt --out runs/vqgan
    smalti train finetune --from runs/vqgan --data photos/ --minutes 10 --out runs/mine

Other recipes begin with the weights of a model too, but say themselves what the model is; nobody can spell that of a
converted one.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smalti.configs import Spec, from_dict
from smalti.data.config import Augment, DataConfig
from smalti.errors import SmaltiError
from smalti.files import read_json
from smalti.recipes.flat import recipe
from smalti.schedules import constant
from smalti.training.experiment import Experiment, Frozen, LossConfig, OptimizerConfig, PhotoConfig


@recipe(steps=1_000, batch_size=8)
def finetune(
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=1e-4, warmup=100, betas=(0.9, 0.99), weight_decay=0.0, ema_decay=0.998
    ),
    photo: PhotoConfig = PhotoConfig(),
    *,
    data: DataConfig,
    start_from: str | None = None,
    image_size: int | str | None = None,
    freeze: Frozen = "none",
    augment: Augment = "flip",
    crop_area: float | None = None,
    beta: float | None = None,
    commitment_weight: float | None = None,
) -> Experiment:
    """Any trained or converted autoencoder, trained further: the one that --from names.

    Args:
        data: what to train on, and to measure with.
        start_from: --from in the shell: the folder of the model, or owner/name on the hub.
        image_size: of the training, as 256 or 192x256; by default that of the model.
        freeze: what stands still: none; codebook, the code vectors; or encoder, with the code vectors, so that images
            keep their codes, and priors and files of codes their worth.
        augment: none, flip, flip_shift, or crop: windows of random place, size and form, and flips.
        crop_area: of the smallest window, as a share of the largest one's; 0.5 by default.
        beta: weight of the KL; by default that with which the model's run ended, or 1.
        commitment_weight: of the term that keeps features near their code; by default that of the model's run, or 0.25.
    """
    if not start_from:
        raise SmaltiError("finetune trains a model further: name it, --from RUN (in Python start_from=...)")
    from smalti.models.autoencoder import Autoencoder
    from smalti.pretrained import find_folder
    from smalti.training.resuming import start_of

    start, folder = start_of(start_from), find_folder(start_from)
    outline = Autoencoder.outline(folder)
    if freeze == "codebook" and not outline.bottleneck.state_dict():
        raise SmaltiError("freeze codebook has no effect on this model, which has no code vectors; leave it out")
    of_run = _loss_of(folder)
    weights = {"beta": beta if beta is None else constant(beta), "commitment_weight": commitment_weight}
    preprocessing = outline.config.preprocessing
    model = replace(
        outline.config,
        bottleneck=_settled(outline.config.bottleneck),
        preprocessing=preprocessing if image_size is None else replace(preprocessing, image_size=image_size),
    )
    return Experiment(
        data=data,
        model=model,
        start=start,
        loss=replace(of_run, **{name: value for name, value in weights.items() if value is not None}),
        optimizer=optimizer,
        photo=photo,
        freeze=freeze,
        augment=augment,
        crop_area=crop_area,
    )


def _loss_of(folder: Path) -> LossConfig:
    """The weights with which a model's run ended; the usual ones of a model that is not of a run."""
    path = folder / "experiment.json"
    if not path.is_file():
        return LossConfig()
    values = read_json(path)
    loss = from_dict(LossConfig, values.get("loss", {}) if isinstance(values, Mapping) else {}, f"{path}: loss")
    return replace(loss, beta=constant(loss.beta.end))


def _settled(spec: Spec) -> Spec:
    """The spec of a bottleneck whose schedules stay where they ended: a relaxation does not begin again."""
    return {name: {"end": value["end"]} if _is_schedule(value) else value for name, value in spec.items()}


def _is_schedule(value: Any) -> bool:
    return isinstance(value, Mapping) and "end" in value
