"""What each part of the dVAE's recipe is worth: emoji at 32x32, 8x8 codes of K = 512, one part changed at a time.

    python experiments/emoji_dvae.py --out runs/emoji_dvae --steps 800

Every arm has the same networks, data order, budget and seed; the table is printed and written to OUT/table.md. Results,
with the hardware and the time: experiments/emoji_dvae.md.
"""

import argparse
from pathlib import Path
from typing import Any

from smalti.evaluation.autoencoders import evaluate
from smalti.files import write_text
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import dvae, vqvae
from smalti.training.log import read_metrics
from smalti.training.loop import train

ARMS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "no restart of dead codes": {"restart_below": 0.0},
    "logits by 1x1 convolution (DALL-E's)": {"logits": "convolution"},
    "the same, beta 0 to 6.6 (all of DALL-E's)": {"logits": "convolution", "beta": 6.6, "beta_warmup": 0.025},
    "beta 0": {"beta": 0.0},
    "beta 6.6 (DALL-E's)": {"beta": 6.6},
    "first temperature 1/4": {"first_temperature": 0.25},
    "first temperature 1/16: no annealing": {"first_temperature": 1 / 16},
    "straight-through": {"estimator": "gumbel_straight_through"},
    "logit-Laplace (DALL-E's)": {"likelihood": "logit_laplace"},
    "VQ-VAE, same networks": {"system": vqvae},
}
COLUMNS = ("psnr_db", "usage", "perplexity", "distortion_bits", "relaxed_distortion_bits", "rate_nats", "bits_per_dim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of arms")
    args = parser.parse_args()

    rows = [f"| arm | {' | '.join(COLUMNS)} | img/s |", f"|---|{'---|' * (len(COLUMNS) + 1)}"]
    for name, changes in ARMS.items():
        if args.only and name not in args.only:
            continue
        recipe = changes.get("system", dvae)
        options = {key: value for key, value in changes.items() if key != "system"}
        run = args.out / "".join(c if c.isalnum() else "_" for c in name)
        train(recipe(data="emoji", **options).with_settings(steps=args.steps, seed=args.seed), run)
        metrics = evaluate(Autoencoder.from_pretrained(run), "emoji", "test")["metrics"]
        records = read_metrics(run / "metrics.jsonl")
        speed = sorted(record["images_per_second"] for record in records)[len(records) // 2]
        cells = [f"{metrics[column]:.4g}" for column in COLUMNS]
        rows.append(f"| {name} | {' | '.join(cells)} | {speed:.0f} |")
        print(rows[-1], flush=True)
        write_text(args.out / "table.md", "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
