"""The verb `demo`: the whole story on the bundled emoji."""

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smalti.apps.evaluate import evaluate
from smalti.apps.output import say
from smalti.apps.train import train
from smalti.files import atomic_path

GUIDANCE = 2.0  # of the pictures that the demo ends with


def demo(
    *, out: str = "runs/demo", steps: int = 2400, prior_steps: int = 2200, seed: int = 0, **settings: Any
) -> dict[str, Any]:
    """Train a dVAE on the bundled emoji, then a transformer that samples new ones from text; evaluate and show both.

    Args:
        out: the dVAE's folder; the transformer's is OUT/text_to_image. An interrupted demo goes on.
        steps: optimiser steps of the dVAE; the default takes about three minutes on two cores.
        prior_steps: optimiser steps of the transformer; the default takes about three minutes on two cores.
        seed: of everything random.
        **settings: of both trainings, see `RunSettings`; by default those of the recipes, and 16 captions a batch.
    """
    from smalti.generate.generator import Generator
    from smalti.models.autoencoder import Autoencoder
    from smalti.recipes import dvae, transformer
    from smalti.reports.caption_samples import picture, sample_captions
    from smalti.reports.demo_page import write_page

    run, prior = Path(out), Path(out) / "text_to_image"
    say(f"1/5 training a dVAE on 2,930 emoji at 32x32: {steps} steps into {run}")
    train(dvae(data="emoji"), run, steps=steps, seed=seed, **settings)
    say("2/5 evaluating it on the 335 emoji of the test split")
    result = evaluate(out)
    say(f"3/5 training a transformer on their captions and codes: {prior_steps} steps into {prior}")
    second = transformer(tokenizer=out, data="emoji", text="en").with_settings(batch_size=16)
    train(second, prior, steps=prior_steps, seed=seed, **settings)
    say("4/5 evaluating it on the test split")
    prior_result = evaluate(str(prior))
    say("5/5 sampling")
    samples = sample_captions(Generator.from_pretrained(str(prior)), "emoji", guidance=GUIDANCE, seed=seed)
    pictures = write_page(run, Autoencoder.from_pretrained(run), "emoji", result, samples=samples, prior=prior_result)
    with atomic_path(run / "text_to_image.png") as temporary:
        picture(samples).save(temporary, "PNG")
    return {
        "run": out,
        "metrics": {**result["metrics"], **{f"prior_{name}": value for name, value in prior_result["metrics"].items()}},
        "written": [str(path) for path in [*pictures, run / "text_to_image.png"]],
        "next": [_opening(run, prior)],
    }


def _opening(run: Path, prior: Path) -> str:
    """The command that opens both in a browser; what is missing for it comes first."""
    extras = {"export": ("onnxruntime", "onnxscript"), "serve": ("fastapi", "uvicorn")}
    missing = [extra for extra, modules in extras.items() if not all(map(find_spec, modules))]
    install = f"pip install 'smalti[{','.join(missing)}]' && " if missing else ""
    return f"open it in a browser: {install}smalti serve {shlex.join(map(str, (run, prior)))}"
