"""Determinism of codes: counts those that differ between batch sizes, threads, neighbours and autocast.

    python experiments/same_codes.py RUN --data emoji --split all

Compares batches of 64 with batches of 1, 2 threads with 1, other neighbours in the batch, and the bottleneck
inside bf16 autocast with the bottleneck outside of it (same features). Results: experiments/emoji_dvae.md.
"""

import argparse

import torch

from smalti.data.batches import Pixels
from smalti.data.sources import open_data
from smalti.images.pixels import to_float
from smalti.models.autoencoder import Autoencoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--split", default="all", choices=["train", "validation", "test", "all"])
    args = parser.parse_args()

    model = Autoencoder.from_pretrained(args.run)
    pixels = Pixels(open_data(args.data, args.split), model.config.preprocessing)
    images = to_float(torch.cat(list(pixels.in_order(256))))

    def encode(batch_size: int, order: torch.Tensor | None = None) -> torch.Tensor:
        order = torch.arange(len(images)) if order is None else order
        codes = torch.cat([model.encode(images[part]) for part in order.split(batch_size)])
        return codes[order.argsort()]

    torch.set_num_threads(2)
    reference = encode(64)
    shuffled = encode(64, torch.randperm(len(images), generator=torch.Generator().manual_seed(0)))
    alone = encode(1)
    torch.set_num_threads(1)
    one_thread = encode(64)
    with torch.no_grad():
        features = torch.cat([model.features(part) for part in images.split(64)])
        outside = torch.cat([model.codes_bottleneck.encode(part) for part in features.split(64)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = torch.cat([model.codes_bottleneck.encode(part) for part in features.split(64)])

    print(f"{len(images)} images, {reference.numel():,} codes; codes that differ:")
    for name, difference in {
        "batch of 1 against batch of 64": alone != reference,
        "1 thread against 2": one_thread != reference,
        "other neighbours in the batch": shuffled != reference,
        "the same features inside bf16 autocast": inside != outside,
    }.items():
        print(f"  {name}: {int(difference.sum())}")


if __name__ == "__main__":
    main()
