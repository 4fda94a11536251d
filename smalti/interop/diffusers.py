"""Our runs as folders of diffusers: a `VQModel`, its config and its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.errors import SmaltiError, shown
from smalti.files import CARD, CONFIG, write_json, write_tensors, write_text
from smalti.interop.check import pictures
from smalti.interop.convert import converted
from smalti.interop.layouts import DIFFUSERS, foreign
from smalti.interop.weights import read_weights
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.models.likelihoods import LocationScale
from smalti.models.networks import VqganNetworks
from smalti.ops.nearest import nearest_code

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = (CONFIG, WEIGHTS, CARD)
VERSION = "0.42.1"  # of diffusers, that was tested
HELD = ("width", "multipliers", "depth", "attention", "middle", "groups", "latent_channels")  # options that it has
CONTRAST = 2.0  # its pixels are 2 x - 1, ours x - 1/2
PROBES, FAR = 512, (0.1, 1.0, 3.0)  # features near code vectors, by so many of their standard deviations
MOST_PIXELS, MOST_CODES = 1e-5, 1e-3  # what may differ in the folder that is read again; a share of the codes


def write(model: Autoencoder, folder: Path) -> dict[str, Any]:
    """Write a model as a folder that `diffusers.VQModel.from_pretrained` loads, and read it again.

    Returns what a verb says of it.

    Args:
        model: in eval mode.
        folder: an empty one.

    Raises:
        SmaltiError: the model has what diffusers has not, or what was written gives other codes or pixels.
    """
    config, tensors = config_of(model), tensors_of(model)
    write_json(folder / CONFIG, config)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    write_text(folder / CARD, _card(config))
    return {"format": "VQModel of diffusers", "tensors": len(tensors), "check": _check(model, folder)}


def config_of(model: Autoencoder) -> dict[str, Any]:
    """The config.json of a `VQModel`.

    Raises:
        SmaltiError: the networks have what it has not.
    """
    networks, channels = _networks(model), model.config.preprocessing.channels
    groups = sorted({min(networks.groups, own) for own in networks.widths})
    if len(groups) > 1:
        what = f"normalisations have {' and '.join(map(str, groups))} groups, by their channels"
        raise SmaltiError(f"a VQModel of diffusers has as many groups everywhere, and this model's {what}")
    attends = [level in networks.attention for level in range(len(networks.widths))]
    codes = model.codes_bottleneck
    return {
        "_class_name": "VQModel",
        "_diffusers_version": VERSION,
        "act_fn": "silu",
        "block_out_channels": networks.widths,
        "down_block_types": ["AttnDownEncoderBlock2D" if own else "DownEncoderBlock2D" for own in attends],
        "force_upcast": False,
        "in_channels": channels,
        "latent_channels": networks.latent_channels,
        "layers_per_block": networks.depth,
        "lookup_from_codebook": False,
        "mid_block_add_attention": networks.middle is None,
        "norm_num_groups": groups[0],
        "norm_type": "group",
        "num_vq_embeddings": codes.codebook_size,
        "out_channels": channels,
        "sample_size": max(model.config.preprocessing.size),
        "scaling_factor": 0.18215,
        "up_block_types": ["AttnUpDecoderBlock2D" if own else "UpDecoderBlock2D" for own in reversed(attends)],
        "vq_embed_dim": codes.out_channels,
    }


def tensors_of(model: Autoencoder) -> dict[str, Tensor]:
    """Its weights by the names of a `VQModel`; pixels become those in -1 to 1, exactly.

    Raises:
        SmaltiError: codes or pixels are not made as there.
    """
    if not isinstance(model.likelihood, LocationScale):
        what = f"the mean of {shown(model.config.likelihood['kind'])} is not what its decoder gives"
        raise SmaltiError(f"{what}: a VQModel of diffusers has no place for it; train with a gaussian or a laplace")
    towers = ("encoder.", "decoder.")
    state = {name: tensor.detach() for name, tensor in model.state_dict().items() if name.startswith(towers)}
    state["encoder.first.weight"] = state["encoder.first.weight"] / CONTRAST
    for name in ("decoder.last.weight", "decoder.last.bias"):  # of the locations, which stand before predicted scales
        state[name] = CONTRAST * state[name][: model.likelihood.channels]
    state["codebook.weight"] = _vectors(model.codes_bottleneck, model.config.bottleneck["kind"])
    names = foreign(state, DIFFUSERS)
    assert len(names) == len(state)
    return {theirs: _as_matrix(ours, state[ours]) for ours, theirs in names.items()}


def _networks(model: Autoencoder) -> VqganNetworks:
    """The networks, if they are those that the options of a `VQModel` make."""
    networks, spec = model.networks, model.config.networks
    if not isinstance(networks, VqganNetworks):
        raise SmaltiError(f"a VQModel of diffusers has vqgan networks, and this model {shown(spec['kind'])} ones")
    plain = VqganNetworks(**{name: spec[name] for name in HELD if name in spec})
    own, theirs = ({**vars(each.details), **vars(each)} for each in (networks, plain))
    if networks.middle not in (None, 2):
        raise SmaltiError(f"a VQModel of diffusers has 2 blocks in the middle, and this model {networks.middle}")
    unlike = [name for name in own if own[name] != theirs[name] and name not in ("stride", "details")]
    if unlike or type(networks) is not VqganNetworks:
        what = f"{unlike[0]} {theirs[unlike[0]]}, and this model {own[unlike[0]]}" if unlike else "none that are yours"
        raise SmaltiError(f"networks of a VQModel of diffusers have {what}")
    return networks


def _vectors(bottleneck: DiscreteBottleneck, kind: str) -> Tensor:
    """The code vectors (K, D), if every code is that of the nearest one: a trial says it, of anybody's bottleneck."""
    told = f"a code of a VQModel of diffusers is the nearest of its vectors, and those of {shown(kind)} are not"
    if bottleneck.grid_shape(1, 1) != (1, 1):
        raise SmaltiError(told)
    with torch.no_grad():
        vectors = bottleneck.decode(torch.arange(bottleneck.codebook_size)[:, None, None]).flatten(1)
        if vectors.shape[1] != bottleneck.in_channels:
            raise SmaltiError(told)
        generator = torch.Generator().manual_seed(0)
        near = vectors[torch.randint(len(vectors), (PROBES,), generator=generator)]
        noise = torch.randn(near.shape, generator=generator) * vectors.std(0)
        features = torch.cat([near + far * noise for far in FAR])
        codes = bottleneck.encode(features[:, :, None, None]).flatten()
        away, least = ((features - vectors[own]).square().sum(1) for own in (codes, nearest_code(features, vectors)))
    if bool((away > least * (1 + 1e-4) + 1e-6).any()):
        raise SmaltiError(told)
    return vectors


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    """The kernel of a 1x1 convolution of attention as the matrix of a linear layer."""
    return tensor.flatten(1) if tensor.ndim == 4 and "_attention" in name else tensor


@torch.no_grad()
def _check(model: Autoencoder, folder: Path) -> str:
    """Read the folder again and compare codes and pixels of the bundled pictures, at most as large as the model's."""
    again = converted(read_weights(str(folder))).model
    height, width = model.config.preprocessing.size
    images = pictures(model.config.preprocessing.channels)[:, :, :height, :width]
    codes = model.encode(images)
    differ = int((codes != again.encode(images)).sum())
    apart = float((model.decode(codes) - again.decode(codes)).abs().max())
    text = f"read again: {differ} of {codes.numel():,} codes differ, pixels by {apart:.1g} at most"
    if apart > MOST_PIXELS or differ > MOST_CODES * codes.numel():
        raise SmaltiError(f"what was written is another model, {text}; please report it")
    return text


def _card(config: dict[str, Any]) -> str:
    """The README.md of the folder."""
    return f"""---
library_name: diffusers
pipeline_tag: image-to-image
tags: [image-tokenizer, smalti]
---
# An image tokenizer, exported by smalti

{config["num_vq_embeddings"]:,} codes of {config["vq_embed_dim"]} dimensions,
trained on images of {config["sample_size"]} pixels.

```python
from diffusers import VQModel

model = VQModel.from_pretrained("this folder")
latents = model.encode(2 * images - 1).latents  # of images (B, C, H, W) in [0, 1], sides multiples of a code's
codes = model.quantize(latents)[2][2].view(len(images), *latents.shape[2:])
images = (model.decode(latents).sample + 1) / 2
```
"""
