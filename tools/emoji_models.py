"""Makes the models that come with the package: a dVAE of the bundled emoji and its text prior.

    make emoji

trains both from scratch with fixed seeds into build/emoji (an interrupted run goes on), evaluates them on the test
split and puts them into smalti/bundled/emoji, with cards. The dVAE is the best of its run by validation loss. Priors
that were the best of theirs (3.76 nats, with dropout 0.2) gave pictures that hardly followed a caption, not even "red
heart"; this one goes on, to 4.43, and follows those that it was trained on. The test split has decided nothing.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import smalti
from smalti.bundled import HOME
from smalti.data.config import EMOJI
from smalti.files import CARD, CONFIG, WEIGHTS, read_json, write_text
from smalti.priors.text import FILE
from smalti.recipes import dvae, transformer
from smalti.training.log import read_metrics

ROOT = Path(__file__).parent.parent
RUN = ROOT / "build" / "emoji"
PRIOR = "text_to_image"
FILES = (CONFIG, WEIGHTS, "evaluation.json", "experiment.json", "best.json", FILE)
MOST_BYTES = 6_000_000  # of both
FIXED: dict[str, Any] = {"seed": 0, "precision": "bf16", "sample_every": 0}
DVAE: dict[str, Any] = {"steps": 6000, "keep": "best"}
NETWORK: dict[str, Any] = {"width": 128, "layers": 4, "dropout": 0.0, "learning_rate": 0.002, "views": "flip"}
TRANSFORMER: dict[str, Any] = {"steps": 4000, "batch_size": 16, "validate_every": 500}
ORIGIN = """
## Origin

Made by `make emoji` (tools/emoji_models.py says why so), in {seconds:,.0f} seconds of one thread, beside other work.
It comes with smalti, under the package's licences.

The pictures are Noto Color Emoji's: Copyright 2013-2023 Google LLC and the noto-emoji authors; SIL Open Font License
1.1, image resources Apache License 2.0. The names are Unicode CLDR's, by the Python package `emoji`: Unicode License
v3, BSD-3-Clause. smalti/data/emoji/NOTICE has the whole of it.
"""


def main() -> None:
    """Train, evaluate, put in place, check."""
    prior = RUN / PRIOR
    smalti.train(dvae(data=EMOJI), RUN, **DVAE, **FIXED)
    smalti.train(transformer(tokenizer=str(RUN), data=EMOJI, text="en", **NETWORK), prior, **TRANSFORMER, **FIXED)
    place(RUN, HOME / EMOJI, EMOJI)
    place(prior, HOME / EMOJI / PRIOR, EMOJI)
    size = sum(path.stat().st_size for path in (HOME / EMOJI).rglob(WEIGHTS))
    print(f"{HOME / EMOJI}: {size:,} bytes of weights")
    if size > MOST_BYTES:
        sys.exit(f"that is more than {MOST_BYTES:,}: make the prior smaller")


def place(run: Path, folder: Path, name: str) -> None:
    """Evaluate a run, and put what is published of it into a folder.

    Args:
        run: the folder of a complete training.
        folder: in the package.
        name: by which the model is opened.
    """
    smalti.evaluate(str(run))
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if (run / file).exists():
            shutil.copyfile(run / file, folder / file)
    card = (run / CARD).read_text(encoding="utf-8").replace('"this folder"', f'"{name}"')
    write_text(folder / CARD, card + ORIGIN.format(seconds=seconds_of(run)))
    shown = read_json(run / "evaluation.json")["metrics"]
    print(f"{folder}: " + ", ".join(f"{key} {shown[key]:.4g}" for key in ("psnr_db", "bits_per_code") if key in shown))


def seconds_of(run: Path) -> float:
    """How long the steps of a training took, by its log."""
    records = [record for record in read_metrics(run / "metrics.jsonl") if "images_per_second" in record]
    befores = [0, *(record["images"] for record in records)]
    return sum((r["images"] - before) / r["images_per_second"] for before, r in zip(befores, records, strict=False))


if __name__ == "__main__":
    main()
