"""Images to codes: DALLE-pytorch's network as it is, and with smalti's hard encoding.

    make bench-encode        # the environment of the peers, then: python benchmarks/encode.py

The peer computes the logits of all K codes at every position, writes them and takes the arg max; ours does the last 1x1
convolution and the arg max in one operation. Both have the same weights. Before timing, the codes are compared: those
that differ are counted, and must be ties within rounding.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import compare, save
from torch import Tensor, nn
from training_step import WIDTH, Ours, peer_network

SIZES = ((64, 16, 1024), (64, 16, 8192), (128, 4, 8192), (256, 1, 8192))  # side, batch, K


def rate(encode: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            encode(images)
        return len(images) / (time.perf_counter() - start)

    return run


def one(side: int, batch: int, size: int, rounds: int) -> dict:
    torch.manual_seed(0)
    peer, images = peer_network(side, size).eval(), torch.rand(batch, 3, side, side)
    ours = Ours(peer).eval()
    other = peer_network(side, size).eval().to(memory_format=torch.channels_last)
    other.load_state_dict(peer.state_dict())
    last = images.contiguous(memory_format=torch.channels_last)

    def smalti(pixels: Tensor) -> Tensor:
        scaled = ((pixels - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        return ours.bottleneck.encode(ours.encoder(scaled))

    with torch.inference_mode():
        found, wanted = smalti(images).flatten(1), peer.get_codebook_indices(images)
        logits = peer(images, return_logits=True).flatten(2)
        top, own = logits.amax(1), logits.gather(1, found[:, None])[:, 0]
    different = int((found != wanted).sum())
    assert (top - own).max() <= 1e-5 * logits.abs().max(), "a code that is not the best"
    sides = {
        "smalti": rate(smalti, images),
        "DALLE-pytorch as shipped": rate(peer.get_codebook_indices, images),
        "DALLE-pytorch, channels-last": rate(lambda _: other.get_codebook_indices(last), images),
        "the encoder without its last layer": rate(nn.Sequential(*peer.encoder[:-1]), images),
    }
    name = f"encode, {side}x{side}, batch {batch}, {WIDTH} channels, K {size}"
    result = compare(name, sides, "smalti", rounds, "images/s")
    result["codes_unlike_the_peers"] = [different, wanted.numel()]
    print(f"  {different} of {wanted.numel()} codes differ, all within rounding")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="benchmarks/results/encode.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    save([one(*size, arguments.rounds) for size in SIZES], Path(arguments.out))


if __name__ == "__main__":
    main()
