"""Peak memory and time of each verb on a photograph of 12 megapixels, with the recipes' network: a process a verb.

    make bench-large_images

The photograph is made here: gradients with noise, as PNG. How much tiles change is measured too, on an image that still
fits whole: the share of codes that differ, and the PSNR of the image decoded in tiles against that decoded whole.
"""

import argparse
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from common import save, used_by
from PIL import Image
from torch import nn

from smalti import Autoencoder
from smalti.images.fidelity import mse
from smalti.models import tiles
from smalti.models.networks import Networks, ResidualNetworks
from smalti.recipes import dvae, vae, vqvae

WIDTH, HEIGHT = 4032, 3024
RECIPES = {"vqvae": vqvae, "dvae": dvae, "vae": vae}


def photograph(height: int, width: int) -> np.ndarray:
    """Something of every scale, uint8 (H, W, 3): ramps, edges and noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = np.stack([columns // 16 % 256, rows // 12 % 256, (columns + rows) // 20 % 256], -1)
    noise = np.random.default_rng(0).integers(-20, 21, (height, width, 1))
    return np.clip(ramps + noise, 0, 255).astype(np.uint8)


def verbs(folder: Path, recipe: str) -> dict[str, dict[str, float]]:
    """Every verb on the photograph, and `encode` on three of them."""
    model, photos = folder / recipe, folder / "photos"
    experiment = RECIPES[recipe](start="random")
    torch.manual_seed(0)
    Autoencoder(experiment.model).save_pretrained(model)
    photos.mkdir(exist_ok=True)
    for index in range(3):
        if not (photos / f"{index}.png").exists():
            Image.fromarray(photograph(HEIGHT, WIDTH)).save(photos / f"{index}.png", compress_level=1)
    one, encoded, out = photos / "0.png", folder / f"{recipe}.npz", folder / "out"
    alone = folder / "one"
    alone.mkdir(exist_ok=True)
    if not (alone / "0.png").exists():
        os.link(one, alone / "0.png")
    out.mkdir(exist_ok=True)
    found = {
        "encode": used_by("encode", model, one, "--out", encoded, "--force"),
        "encode, three photographs": used_by("encode", model, photos, "--out", out / "three.npz", "--force"),
        "decode": used_by("decode", model, encoded, "--out", out, "--force"),
        "reconstruct": used_by("reconstruct", model, one, "--out", out, "--force"),
        "evaluate --image_size original --distances none": used_by(
            "evaluate", model, "--data", alone, "--split", "all", "--image_size", "original", "--distances", "none"
        ),
    }
    if hasattr(Autoencoder(experiment.model).bottleneck, "codebook_size"):
        found["compress"] = used_by("compress", model, one, "--out", out / "a.smalti", "--force")
        found["decompress"] = used_by("decompress", out / "a.smalti", "--model", model, "--out", out, "--force")
    for verb, used in found.items():
        print(f"  {verb:<32} {used['peak_mb']:6,} MB {used['seconds']:7.1f} s", flush=True)
    return found


class Normalised(ResidualNetworks):
    """Residual networks with a normalisation over the whole image before the last layer of each."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.reach = None

    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """Images to features."""
        return self._normalised(super().encoder(image_channels, features), -1)

    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """Latents to the likelihood's parameters."""
        return self._normalised(super().decoder(latents, parameters), -2 if self.patch > 1 else -1)

    def _normalised(self, network: Any, last: int) -> nn.Module:
        return nn.Sequential(*network[:last], nn.GroupNorm(8, self.widths[0 if last < -1 else -1]), *network[last:])


def differences(name: str, networks: Networks) -> dict[str, Any]:
    """What tiles change on an image of 1.5 megapixels: the share of other codes, the PSNR between the two decodings."""
    torch.manual_seed(0)
    model = Autoencoder(vqvae(start="random").model)
    model.networks = networks
    model.encoder = networks.encoder(3, model.bottleneck.in_channels)
    model.decoder = networks.decoder(model.bottleneck.out_channels, model.likelihood.num_parameters)
    image = torch.from_numpy(photograph(1024, 1536)).permute(2, 0, 1)[None]
    with patch.object(tiles, "WHOLE_PIXELS", image[0, 0].numel()):
        codes = model.eval().encode(image)
        whole = model.decode(codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tiles differ
        other, tiled = (model.encode(image) != codes).double().mean().item(), model.decode(codes)
    error = mse(whole, tiled).item()
    found = {
        "reach_px": networks.reach,
        "codes_that_differ": round(other, 6),
        "psnr_db": round(-10 * math.log10(error), 1) if error else None,
    }
    print(f"  {name}: {found}", flush=True)
    return found


def all_differences() -> dict[str, dict[str, Any]]:
    """For networks that see less than the halo, more, and everything."""
    small = {"stride": 4, "width": 32, "depth": 1, "patch": 2, "convolutions": 2}
    return {
        "residual, depth 1, stride 4": differences("local", ResidualNetworks(**small)),
        "residual, depth 2, stride 8, 4 convolutions": differences(
            "farther than the halo", ResidualNetworks(stride=8, width=16, depth=2)
        ),
        "the first with GroupNorm": differences("whole image", Normalised(**small)),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="vqvae", help="with commas")
    parser.add_argument("--out", default="benchmarks/results/large_images.json")
    arguments = parser.parse_args(argv)
    results = []
    for recipe in arguments.recipes.split(","):
        print(f"{recipe}, {WIDTH} x {HEIGHT}")
        with tempfile.TemporaryDirectory() as folder:
            found = verbs(Path(folder), recipe)
        result = {"workload": recipe, "size": [HEIGHT, WIDTH], "threads": torch.get_num_threads(), "verbs": found}
        results.append(result)
    print("tiles beside the whole, 1536 x 1024")
    results.append({"workload": "tiles beside the whole", "size": [1024, 1536], "differences": all_differences()})
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()
