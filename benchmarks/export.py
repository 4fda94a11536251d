"""Runs of ours as diffusers loads them: codes and pixels of `smalti export --format diffusers` by its `VQModel`.

    make bench-export

Weights are random, scaled so that all code vectors are reached; images are noise, and smooth. A code that differs is a
tie where both vectors are equally near but for rounding.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import save
from torch import Tensor

from smalti.interop import diffusers
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig, Preprocessing

VECTORS = {"kind": "vector_quantizer", "code_dim": 16}
NETWORKS = {"kind": "vqgan", "width": 32, "multipliers": (1, 2, 4)}
MODELS: dict[str, dict[str, Any]] = {  # networks and a bottleneck; sides of images are 64, of the whole one 128
    "attention at the coarsest level": {"networks": {}, "bottleneck": {"codebook_size": 4096}},
    "attention at two levels, groups of 8": {
        "networks": {"attention": (1, 2), "groups": 8},
        "bottleneck": {"codebook_size": 4096},
    },
    "no attention": {"networks": {"attention": (), "middle": 2}, "bottleneck": {"codebook_size": 4096}},
    "code vectors of a matrix (SimVQ)": {"networks": {}, "bottleneck": {"codebook_size": 4096, "learning": "simvq"}},
    "codes by direction": {"networks": {}, "bottleneck": {"codebook_size": 4096, "compare": "direction"}},
    "distance logits of a dVAE": {"networks": {}, "bottleneck": {"kind": "categorical", "codebook_size": 4096}},
    "VQGAN f16, whole": {
        "networks": {"width": 128, "multipliers": (1, 1, 2, 2, 4), "depth": 2},
        "bottleneck": {"codebook_size": 16384, "code_dim": 256},
    },
}
TIE = 1e-4  # of the squared distance


def model_of(networks: dict[str, Any], bottleneck: dict[str, Any], side: int) -> Autoencoder:
    """A model whose features reach all of its code vectors."""
    torch.manual_seed(0)
    config = AutoencoderConfig(
        networks={**NETWORKS, **networks},
        bottleneck={**VECTORS, **bottleneck},
        preprocessing=Preprocessing(image_size=side),
    )
    model = Autoencoder(config).eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * parameter.std(correction=0) * torch.randn_like(parameter))
        features = model.features(images_of(2, side)).flatten(2).transpose(1, 2).flatten(0, 1)
        state, own = model.state_dict(), model.codes_bottleneck.decode(torch.arange(4)[:, None, None])
        state["encoder.head.weight"].mul_(own.std() / features.std())  # the spread of code vectors
        state["encoder.head.bias"].copy_(-features.mean(0) * own.std() / features.std())
        made = model.decoder(model.bottleneck(model.features(images_of(2, side))).latents)
        state["decoder.last.weight"].mul_(0.2 / made.std())  # so that most pixels lie in [0, 1]
    return model


def images_of(num: int, side: int) -> Tensor:
    """Images (num, 3, side, side) in [0, 1]: half of them noise, half of them smooth."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(num - num // 2, 3, side, side, generator=generator)
    coarse = torch.rand(num // 2, 3, side // 16, side // 16, generator=generator)
    return torch.cat([noise, F.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)])


@torch.no_grad()
def row(name: str, networks: dict[str, Any], bottleneck: dict[str, Any]) -> dict[str, Any]:
    """What differs between a model and the folder of it in diffusers."""
    from diffusers import VQModel

    side, num = (64, 16) if "width" not in networks else (128, 2)
    model = model_of(networks, bottleneck, side)
    with tempfile.TemporaryDirectory() as folder:
        diffusers.write(model, Path(folder))
        theirs, loaded = VQModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loaded[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = images_of(num, side)
    codes = model.encode(images)
    latents = theirs.encode(2 * images - 1).latents
    found = theirs.quantize(latents)[2][2].view(codes.shape)
    vectors = theirs.quantize.embedding.weight
    away, least = ((latents - vectors[own].permute(0, 3, 1, 2)).square().sum(1) for own in (codes, found))
    other = codes != found
    ties = int((other & ((away - least).abs() <= TIE * least)).sum())
    decoded = theirs.decode(vectors[codes].permute(0, 3, 1, 2), force_not_quantize=True).sample
    apart = float(((decoded + 1) / 2).clamp(0, 1).sub(model.decode(codes)).abs().max())
    result = {
        "workload": name,
        "codes": codes.numel(),
        "different": len(codes.unique()),
        "differ": int(other.sum()),
        "ties": ties,
        "pixels": apart,
        "numbers": sum(weight.numel() for weight in theirs.parameters()),
    }
    print(f"{name}: {result['differ']} of {codes.numel():,} codes differ ({ties} ties), pixels by {apart:.1e}")
    return result


def main() -> None:
    """All models, into results/export.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "export.json")
    out = parser.parse_args().out
    save([row(name, **parts) for name, parts in MODELS.items()], out)


if __name__ == "__main__":
    main()
