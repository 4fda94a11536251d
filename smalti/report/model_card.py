"""Model cards: the README.md of a run, for readers and for the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

import smalti
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.priors.code_model import CodeModel
from smalti.training.experiment import Experiment, PriorExperiment

SHORT = ("psnr_db", "ssim", "usage", "perplexity", "distortion_nats", "rate_nats", "elbo_nats", "bits_per_dim",
         "nll_nats", "nominal_bits_per_pixel", "bf16_equal_codes")  # fmt: skip


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where two decimals do."""
    return f"{value:.2f}" if 10 <= abs(value) < 1e6 else f"{value:.4g}"


def table(metrics: Mapping[str, float]) -> str:
    """A Markdown table of metrics."""
    rows = "\n".join(f"| {name} | {format_number(value)} |" for name, value in metrics.items())
    return f"| metric | value |\n|---|---|\n{rows}\n"


def _own_code(*parts: object) -> list[str]:
    """What a card says where parts of the model are not smalti's."""
    modules = {type(part).__module__ for part in parts}
    own = " and ".join(sorted(f"`{module}`" for module in modules if not module.startswith("smalti.")))
    need = "by its author defines parts of it: name its file by `--code`, or import it before the model is loaded."
    return [f"The module {own} {need}", ""] if own else []


def prior_card(model: CodeModel, experiment: PriorExperiment, evaluation: Mapping[str, Any] | None = None) -> str:
    """The text of a prior's card; see `model_card`."""
    config = experiment.model
    given, prompt = "", ""
    if config.labels:
        given, prompt = f", given its {config.label_kind} (one of {len(config.labels)})", f"{config.labels[0]!r}, "
    elif config.text:
        given, prompt = f", given its caption ({', '.join(config.text.languages)})", '"red heart", '
    lines = [
        "---",
        "library_name: smalti",
        f"pipeline_tag: {'text-to-image' if config.text else 'unconditional-image-generation'}",
        f"tags: [smalti, image-tokenizer-prior, {experiment.recipe}]",
        "---",
        f"# {experiment.recipe} on the codes of {experiment.data}",
        "",
        f"A prior over {config.grid[0]}x{config.grid[1]} codes of {config.codebook_size}{given}: "
        f"{model.num_parameters:,} parameters, for the tokenizer {config.tokenizer_hash[:12]}.",
        "",
        "```python",
        "from smalti import Generator",
        "",
        'generator = Generator.from_pretrained("this folder")',
        f"images = generator({prompt}num=4)",
        "```",
        "",
        *_own_code(model.prior),
    ]
    if evaluation:
        lines += [f"## Evaluation\n\n{evaluation['num_images']:,} images.\n", table(evaluation["metrics"])]
    return "\n".join(lines)


def model_card(model: Autoencoder, experiment: Experiment, evaluation: Mapping[str, Any] | None = None) -> str:
    """The text of the card.

    Args:
        model: for its size and its parts.
        experiment: how it was trained.
        evaluation: what `smalti.evaluation.autoencoders.evaluate` gave, once there is one.
    """
    preprocessing, bottleneck = experiment.model.preprocessing, model.bottleneck
    colour = "colour" if preprocessing.channels == 3 else "grey"
    codes, axes = "", ""
    if isinstance(bottleneck, DiscreteBottleneck):
        several = f"{bottleneck.num_codebooks} x " if bottleneck.num_codebooks > 1 else ""
        codes, axes = f", {several}{bottleneck.codebook_size} codes", ", ".join(bottleneck.code_axes.split())
    lines = [
        "---",
        "library_name: smalti",
        "pipeline_tag: image-to-image",
        f"tags: [smalti, image-tokenizer, {experiment.recipe}]",
        "---",
        f"# {experiment.recipe} on {experiment.data}",
        "",
        f"An autoencoder with the bottleneck `{experiment.model.bottleneck['kind']}`{codes}: "
        f"{model.num_parameters:,} parameters, trained on "
        f"{preprocessing.image_size}x{preprocessing.image_size} {colour} images for {experiment.run.steps:,} steps of "
        f"{experiment.run.batch_size * experiment.optimizer.accumulate} with smalti {smalti.__version__}.",
        "",
        "```python",
        "from smalti import Autoencoder",
        "",
        'model = Autoencoder.from_pretrained("this folder")',
        f"codes = model.encode(images)     # ({axes}) integers" if codes else "images = model.reconstruct(images)",
        *(["images = model.decode(codes)     # (B, C, H, W) in [0, 1]"] if codes else []),
        "```",
        "",
        *_own_code(model.networks, bottleneck, model.likelihood),
    ]
    if evaluation:
        lines += [
            f"## Evaluation\n\n{evaluation['num_images']:,} images of the {evaluation['split']} split of "
            f"`{evaluation['data']}`; weights {evaluation['model_hash'][:12]}; smalti {evaluation['smalti']}.\n",
            table({name: evaluation["metrics"][name] for name in SHORT if name in evaluation["metrics"]}),
        ]
    return "\n".join(lines)
