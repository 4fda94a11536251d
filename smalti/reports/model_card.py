"""Model cards: the README.md of a run, for readers and for the Hugging Face hub."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import smalti
from smalti.configs import from_dict
from smalti.data.config import DataConfig
from smalti.evaluation.catalogue import format_metric, heading
from smalti.images.preprocessing import size_text
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.priors.code_model import CodeModel
from smalti.reports.tables import markdown_table, markdown_text, metric_texts
from smalti.training.experiment import Experiment, PriorExperiment


def public(data: DataConfig) -> str:
    """What a card says of the data: the names of folders and files, without where they are."""
    places = {key: "/".join(Path(place).parts[-2 if "*" in place else -1 :]) for key, place in vars(data).items()}
    return str(replace(data, **places))


class About(NamedTuple):
    """What a card says of one kind of model."""

    task: str  # the hub's word
    tag: str
    title: str
    text: str
    example: str
    parts: tuple[object, ...]  # of the model, which a user may have written


def model_card(
    model: Any,
    experiment: Any,
    evaluation: Mapping[str, Any] | None = None,
    *,
    best: Mapping[str, Any] | None = None,
) -> str:
    """The text of the card of an autoencoder or a prior.

    Args:
        model: for its size and its parts.
        experiment: how it was trained.
        evaluation: what `evaluate` gave, once there is one.
        best: the step and its validation_loss, where the model is the best of a run instead of the last.
    """
    about = _of_prior(model, experiment) if isinstance(model, CodeModel) else _of_autoencoder(model, experiment)
    card = f"""---
library_name: smalti
pipeline_tag: {about.task}
tags: [smalti, {about.tag}, {experiment.recipe}]
---
# {experiment.recipe} on {about.title}

{about.text}

```python
{about.example}
```
"""
    if best:
        card += f"\nThe weights are those after step {best['step']:,}, the best of the run by validation loss "
        card += f"({best['validation_loss']:.6g}).\n"
    modules = {type(part).__module__ for part in about.parts}
    if own := " and ".join(sorted(f"`{module}`" for module in modules if not module.startswith("smalti."))):
        need = "by its author defines parts of it: name its file by `--code`, or import it before the model is loaded."
        card += f"\nThe module {own} {need}\n"
    if evaluation:
        numbers = [(markdown_text(heading(name)), text, f"`{name}`") for name, text in metric_texts(evaluation).items()]
        rows = "\n".join(markdown_table(["metric", "value", "name"], numbers))
        measured = public(from_dict(DataConfig, evaluation["data_config"]))
        card += f"""
## Evaluation

{evaluation["num_images"]:,} images of the {evaluation["split"]} split of `{measured}`; \
weights {evaluation["model_hash"][:12]}; smalti {evaluation["smalti"]}.

{rows}
"""
        if probes := evaluation.get("probes"):
            card += _probes(probes)
    return card


def _probes(probes: Mapping[str, Any]) -> str:
    """The table of the probes' accuracies."""
    columns = ("linear_accuracy", "knn_accuracy")
    rows = "\n".join(
        f"| {row['representation']} | {row['dims']:,} | "
        + " | ".join(format_metric(name, row[name]) for name in columns)
        + " |"
        for row in probes["rows"]
    )
    return f"""
Accuracy of telling the label `{probes["label"]}` of {probes["num_test"]:,} test images, after {probes["num_train"]:,} \
training images; always saying the commonest: {format_metric("majority_accuracy", probes["majority_accuracy"])}.

| representation | dims | linear probe | {probes["k"]} nearest neighbours |
|---|---|---|---|
{rows}
"""


def _of_prior(model: CodeModel, experiment: PriorExperiment) -> About:
    config, given, prompt, task = experiment.model, "", "", "unconditional-image-generation"
    if config.labels:
        given, prompt = f", given its {config.label_kind} (one of {len(config.labels)})", f"{config.labels[0]!r}, "
    elif config.text:
        given, prompt = f", given its caption ({', '.join(config.text.languages)})", '"red heart", '
        task = "text-to-image"
    text = f"""A prior over {config.grid[0]}x{config.grid[1]} codes of {config.codebook_size}{given}: \
{model.num_parameters:,} parameters, for the tokenizer {config.tokenizer_hash[:12]}."""
    example = f"""from smalti import Generator

generator = Generator.from_pretrained("this folder")
images = generator({prompt}num=4)"""
    return About(
        task, "image-tokenizer-prior", f"the codes of {public(experiment.data)}", text, example, (model.prior,)
    )


def _of_autoencoder(model: Autoencoder, experiment: Experiment) -> About:
    run, images, bottleneck = experiment.run, experiment.model.preprocessing, model.bottleneck
    codes, example = "", "images = model.reconstruct(images)"
    noise = experiment.model.corruption
    restores = "" if noise.noise == "none" else f", to restore images from {noise}"
    if isinstance(bottleneck, DiscreteBottleneck):
        several = f"{bottleneck.num_codebooks} x " if bottleneck.num_codebooks > 1 else ""
        codes = f", {several}{bottleneck.codebook_size} codes"
        example = f"""codes = model.encode(images)  # ({", ".join(bottleneck.code_axes.split())}) integers
images = model.decode(codes)  # (B, C, H, W) in [0, 1]"""
    text = f"""An autoencoder with the bottleneck `{experiment.model.bottleneck["kind"]}`{codes}: \
{model.num_parameters:,} parameters, trained on {size_text(images.size)} \
{images.kind} images for {run.steps:,} steps of \
{run.batch_size * experiment.optimizer.accumulate} with smalti {smalti.__version__}{restores}."""
    load = 'from smalti import Autoencoder\n\nmodel = Autoencoder.from_pretrained("this folder")\n'
    parts = (model.networks, bottleneck, model.likelihood)
    return About("image-to-image", "image-tokenizer", public(experiment.data), text, load + example, parts)
