"""Exported graphs beside smalti on photographs: codes and pixels of onnxruntime, sizes of files, seconds of CPU.

    make bench-graphs PHOTOS=DIR

Every bottleneck stands between the networks of the preset photo128, trained for a few steps on pieces of the
photographs, so that codes vary. Every format that `smalti convert` knows has the small random weights of
tests/golden/interop.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import save
from torch import Tensor

from smalti.configs import Spec
from smalti.errors import SmaltiError
from smalti.images.pixels import pad_to_multiple
from smalti.images.reading import read_image
from smalti.interop import onnx
from smalti.interop.convert import converted
from smalti.interop.onnx import Decoder, Differences, Encoder, Graph
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.modes import using
from smalti.ops.counts import perplexity
from smalti.recipes import vqvae
from smalti.training.experiment import LossConfig
from smalti.training.losses import autoencoder_loss

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests/interop"))

from golden_models import NAMES, read, weights  # noqa: E402  # pyright: ignore[reportMissingImports]

VECTORS = {"kind": "vector_quantizer", "codebook_size": 16384, "code_dim": 8}
FEWER = {"codebook_size": 1024, "code_dim": 8}
RELAXED = {"kind": "categorical", "codebook_size": 4096, "code_dim": 16}
SCALARS = {"kind": "fsq", "levels": (8, 8, 8, 6, 5)}
BOTTLENECKS: Mapping[str, Spec] = {
    "VQ, direction, K 16,384 (the preset's)": {**VECTORS, "compare": "direction"},
    "VQ, distance, K 16,384": VECTORS,
    "VQ, product, K 16,384": {**VECTORS, "compare": "product"},
    "VQ of a matrix (SimVQ), K 16,384": {**VECTORS, "learning": "simvq"},
    "VQ by gradient, K 1,024": {"kind": "vector_quantizer", "learning": "gradient", **FEWER},
    "residual, 4 x 1,024": {"kind": "residual_quantizer", "num_codebooks": 4, **FEWER},
    "product, 2 x 1,024": {"kind": "product_quantizer", "num_codebooks": 2, **FEWER},
    "FSQ": SCALARS,
    "FSQ, listing": {**SCALARS, "variant": "listing"},
    "FSQ, symmetric": {**SCALARS, "variant": "symmetric"},
    "LFQ, 14 bits": {"kind": "binary_quantizer", "bits": 14},
    "BSQ, 14 bits": {"kind": "binary_quantizer", "bits": 14, "spherical": True},
    "dVAE, distances, K 4,096": RELAXED,
    "dVAE, convolution, K 4,096": {**RELAXED, "logits": "convolution"},
    "dVAE, one-hot, K 512": {"kind": "categorical", "logits": "features", "codebook_size": 512, "code_dim": 0},
    "dVAE, learned prior, K 512": {**RELAXED, "codebook_size": 512, "prior_grid": (16, 16)},
    "VAE": {"kind": "gaussian", "channels": 8},
    "AE": {"kind": "identity", "channels": 8},
}
PIECE, BATCH, STEPS, ROUNDS = 128, 8, 6, 3
TIE = 1e-6  # what moves a tie, of the size of features and weights; ten times as much for `different_widely`
SIDE = 256  # of what the converted formats see, whose attention is over all positions


def photographs(folder: Path, most: int | None) -> list[Tensor]:
    """The PNG and JPEG files of a folder, each (1, 3, H, W) in [0, 1]."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))[:most]
    if not paths:
        raise SmaltiError(f"{folder} holds no photographs: name a folder of PNG or JPEG files with PHOTOS=DIR")
    return [torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 255 for path in paths]


def pieces(images: list[Tensor], generator: torch.Generator) -> Tensor:
    """A batch of random pieces of them."""
    found = []
    for _ in range(BATCH):
        image = images[int(torch.randint(len(images), (), generator=generator))]
        y, x = (int(torch.randint(side - PIECE + 1, (), generator=generator)) for side in image.shape[2:])
        found.append(image[:, :, y : y + PIECE, x : x + PIECE])
    return torch.cat(found)


def trained(bottleneck: Spec, images: list[Tensor], steps: int) -> Autoencoder:
    """The preset's networks around a bottleneck, after a few steps; its codebook begins with the features then."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    config = replace(vqvae(preset="photo128").model, bottleneck=bottleneck)
    model = Autoencoder(config)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(steps):
        model.bottleneck.anneal(step, steps)
        optimizer.zero_grad()
        autoencoder_loss(model, pieces(images, generator), LossConfig(), beta=0.1).total.backward()
        optimizer.step()
        model.bottleneck.update()
    model.bottleneck = Autoencoder(config).bottleneck
    model.bottleneck(model.features(pieces(images, generator)))
    return model.eval()


def seconds(sides: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Medians of the seconds of CPU, in rotated order, after a warm-up."""
    names, found = list(sides), {side: [] for side in sides}
    for index in range(ROUNDS + 1):
        for side in names[index % len(names) :] + names[: index % len(names)]:
            start = time.process_time()
            sides[side]()
            found[side].append(time.process_time() - start)
    return {side: round(statistics.median(own[1:]), 4) for side, own in found.items()}


def row(name: str, model: Autoencoder, images: list[Tensor]) -> dict[str, Any]:
    """What differs between a model and its graphs, and what they take."""
    with tempfile.TemporaryDirectory() as folder, using(model) as still:
        onnx.write(model, Path(folder))
        sizes = {path.stem: path.stat().st_size for path in sorted(Path(folder).glob("*.onnx"))}
        graphs = {stem: Graph(Path(folder) / f"{stem}.onnx") for stem in sizes}
        found, counts, widely = Differences(0, 0, 0, 0.0), None, 0
        images = [pad_to_multiple(image, model.stride) for image in images]
        for image in images:
            own = onnx.differences(still, graphs["encoder"], graphs.get("decoder"), image, TIE)
            if own.faults:
                widely += onnx.differences(still, graphs["encoder"], None, image, 10 * TIE).faults
            found += own
            if isinstance(still.bottleneck, DiscreteBottleneck):
                own = still.bottleneck.histogram(Encoder(still)(image))
                counts = own if counts is None else counts + own
        encoder, decoder, image = Encoder(still), Decoder(still), images[0]
        codes = encoder(image)
        timed = {"encode": {"smalti": lambda: encoder(image), "onnxruntime": lambda: graphs["encoder"](image)}}
        if "decoder" in graphs:
            timed["decode"] = {"smalti": lambda: decoder(codes), "onnxruntime": lambda: graphs["decoder"](codes)}
        result = {
            "workload": name,
            "images": len(images),
            "size": [image.shape[3], image.shape[2]],
            "positions": found.codes,
            "different": found.faults,
            "different_widely": widely,
            "ties": found.ties,
            "largest": found.largest,
            "perplexity": None if counts is None else round(perplexity(counts), 1),
            "codebook_size": None if counts is None else counts.shape[1],
            "bytes": sizes,
            "seconds": {verb: seconds(sides) for verb, sides in timed.items()},
            "threads": torch.get_num_threads(),
        }
    told = ", ".join(f"{verb} {own['smalti']} s, {own['onnxruntime']} s" for verb, own in result["seconds"].items())
    print(f"{name}: {found.faults} of {found.codes:,} codes differ, {found.ties} ties, values by {found.largest:.1e}; "
          f"perplexity {result['perplexity']}; smalti and onnxruntime: {told}", flush=True)  # fmt: skip
    return result


def main() -> None:
    """All models, each into results/graphs.json when it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="a folder of PNG or JPEG files")
    parser.add_argument("--most", type=int, help="so many of them")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--only", nargs="*", default=("",), help="beginnings of names")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "graphs.json")
    chosen = parser.parse_args()
    images = photographs(chosen.photographs, chosen.most)
    squares = [image[:, :, :SIDE, :SIDE] for image in images]
    for name, spec in BOTTLENECKS.items():
        if name.startswith(tuple(chosen.only)):
            save([row(name, trained(spec, images, chosen.steps), images)], chosen.out)
    for name in NAMES:
        if f"converted {name}".startswith(tuple(chosen.only)):
            model = converted(weights(read(name))).model.eval()
            try:
                save([row(f"converted {name}", model, squares)], chosen.out)
            except SmaltiError as error:  # one that is refused does not end the others
                print(f"converted {name}: {error}", flush=True)


if __name__ == "__main__":
    main()
