"""Ablation of the dVAE's recipe: emoji at 32x32, 8x8 codes of K = 512, one part changed at a time.

    python experiments/emoji_dvae.py --out runs/emoji_dvae --steps 500

Every arm has the same networks, data order, steps and seed; the table is printed and written to OUT/table.md. Results,
with the hardware and the time: experiments/emoji_dvae.md.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from smalti.evaluation.autoencoders import evaluate
from smalti.files import write_text
from smalti.models.autoencoder import Autoencoder
from smalti.recipes import dvae, vqvae
from smalti.training.log import read_metrics
from smalti.training.loop import train

ARMS: dict[str, Callable[..., Any]] = {
    "recipe": dvae,
    "no dead-code restart": partial(dvae, restart_below=0.0),
    "logits by 1x1 convolution (DALL-E's)": partial(dvae, logits="convolution"),
    "the same, beta 0 to 6.6 (all of DALL-E's)": partial(dvae, logits="convolution", beta=6.6, beta_warmup=0.025),
    "beta 0": partial(dvae, beta=0.0),
    "beta 6.6 (DALL-E's)": partial(dvae, beta=6.6),
    "first temperature 1/4": partial(dvae, first_temperature=0.25),
    "first temperature 1/16: no annealing": partial(dvae, first_temperature=1 / 16),
    "straight-through": partial(dvae, estimator="gumbel_straight_through"),
    "logit-Laplace (DALL-E's)": partial(dvae, likelihood="logit_laplace"),
    "VQ-VAE, same networks": vqvae,
}
COLUMNS = ("psnr_db", "usage", "perplexity", "distortion_bits", "relaxed_distortion_bits", "rate_nats", "bits_per_dim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    args = parser.parse_args()

    rows = [f"| arm | {' | '.join(COLUMNS)} | img/s |", f"|---|{'---|' * (len(COLUMNS) + 1)}"]
    for name in args.only:
        run = args.out / "".join(c if c.isalnum() else "_" for c in name)
        train(ARMS[name](data="emoji").with_settings(steps=args.steps, seed=args.seed), run)
        metrics = evaluate(Autoencoder.from_pretrained(run), "emoji", "test")["metrics"]
        records = read_metrics(run / "metrics.jsonl")
        speed = sorted(record["images_per_second"] for record in records)[len(records) // 2]
        cells = [f"{metrics[column]:.4g}" for column in COLUMNS]
        rows.append(f"| {name} | {' | '.join(cells)} | {speed:.0f} |")
        print(rows[-1], flush=True)
        write_text(args.out / "table.md", "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
