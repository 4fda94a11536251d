"""Networks of VQGAN's kind: the options of `VqganNetworks`, and its weights, from the tensors of others."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smalti.configs import Spec
from smalti.errors import SmaltiError
from smalti.interop import haar
from smalti.interop.formats import Compare, Format
from smalti.interop.layouts import foreign, renamed
from smalti.interop.parts import Parts, TensorError, Tensors, codebook_state, identity, said

SCALE = 0.1  # of the Gaussian around what a decoder gives: none of them was trained as a likelihood
GROUPS, GROUPS_KEY = 32, "norm_num_groups"  # of the normalisations, where a config of diffusers says no other number
COLOURS = 3  # of images in Haar patches
HALVED = r"encoder\.level\d+_halve\.conv\.weight"
GREY = {"signed": 0.5, "unit": 0.0}
CONTRAST = {"signed": 2.0, "unit": 1.0}  # pixels x come in, and go out, as contrast * (x - grey)


def our_names(tensors: Tensors, format: Format) -> dict[str, str]:
    """Our name of each of their tensors that has a place."""
    assert format.layout is not None
    names = renamed(tensors, format.layout)
    if format.has_decoder:
        return names
    return {theirs: ours for theirs, ours in names.items() if not ours.startswith("decoder.")}


def their_name(ours: str, names: Mapping[str, str], format: Format) -> str:
    """What a file in this format calls a tensor of ours, also one that it lacks.

    Args:
        ours: the name of the tensor.
        names: ours of theirs, of the tensors that the file has: they tell how many levels there are.
        format: of the file.
    """
    assert format.layout is not None
    return foreign([*names.values(), ours], format.layout).get(ours, ours)


def parts_of(tensors: Tensors, format: Format, settings: Mapping[str, Any], compare: Compare | None) -> Parts:
    """The parts of an autoencoder, of tensors by our names.

    Raises:
        SmaltiError: a tensor that tells how the networks are is missing, or `VqganNetworks` does not hold them.
    """
    state = {name: _as_kernel(name, tensor) for name, tensor in tensors.items()}
    bottleneck = _bottleneck(state, settings, compare, format)
    _join(state, "encoder", _of(state, "encoder.last.weight").shape[0])
    if format.has_decoder:
        _join(state, "decoder", _of(state, "decoder.first.weight").shape[1])
    grey, contrast = GREY[format.values], CONTRAST[format.values]
    options = _options(state, format)
    patch = _unpatch(state) if format.haar else 1
    state["encoder.first.weight"] = contrast * state["encoder.first.weight"]
    if format.has_decoder:  # ours give x - 1/2
        state["decoder.last.weight"] = state["decoder.last.weight"] / contrast
        state["decoder.last.bias"] = _of(state, "decoder.last.bias") / contrast + (grey - 0.5)
    groups = said(settings, (GROUPS_KEY,)) or GROUPS
    networks = {"kind": "vqgan", **options, "patch": patch, "groups": groups, "grey": grey}
    return Parts(networks, bottleneck, {"kind": "gaussian", "scale": SCALE}, state)


def _join(state: dict[str, Tensor], tower: str, channels: int) -> None:
    """Give a tower that has no 1x1 convolution beside the bottleneck one that changes nothing."""
    if f"{tower}.head.weight" not in state:
        state |= {f"{tower}.head.weight": identity(channels), f"{tower}.head.bias": torch.zeros(channels)}


def _unpatch(state: dict[str, Tensor]) -> int:
    """Let the networks take and give patches of pixels in place of their Haar coefficients; returns the patch."""
    first = state["encoder.first.weight"]
    patch = math.isqrt(first.shape[1] // COLOURS)
    if patch & (patch - 1) or COLOURS * patch**2 != first.shape[1]:
        raise SmaltiError(f"its first layer takes {first.shape[1]} channels, which are no patches of {COLOURS} colours")
    state["encoder.first.weight"] = haar.of_pixels(first, COLOURS, patch)
    for name in ("decoder.last.weight", "decoder.last.bias"):
        state[name] = haar.to_pixels(_of(state, name), COLOURS, patch)
    return patch


def _of(state: Tensors, name: str) -> Tensor:
    if name not in state:
        raise TensorError(name, "is missing")
    return state[name]


def _as_kernel(name: str, tensor: Tensor) -> Tensor:
    """The matrix of a linear layer over positions as the kernel of a 1x1 convolution."""
    is_matrix = tensor.ndim == 2 and "_attention" in name
    return tensor[:, :, None, None] if is_matrix else tensor


def _bottleneck(state: dict[str, Tensor], settings: Mapping[str, Any], compare: Compare | None, format: Format) -> Spec:
    """Its spec; its tensors get the names of `Autoencoder`."""
    if format.levels or format.signs:
        if compare is not None:
            raise SmaltiError(f"compare {compare} has no effect where there are no code vectors; leave it out")
        if format.signs:
            return {"kind": "binary_quantizer", "bits": len(_of(state, "encoder.last.weight"))}
        return {"kind": "fsq", "levels": tuple(settings.get("levels", format.levels))}
    vectors = _of(state, "codebook.weight")
    if vectors.ndim != 2:
        raise SmaltiError(f"the code vectors have the shape {tuple(vectors.shape)}, not (K, D)")
    del state["codebook.weight"]
    state |= codebook_state(vectors)
    size = {"codebook_size": len(vectors), "code_dim": vectors.shape[1]}
    if "logits.weight" not in state:
        # as published codebooks were trained: by gradient, and without restarts
        rule = {"compare": compare or format.compare, "learning": "gradient", "restart_below": 0.0}
        return {"kind": "vector_quantizer", **size, **rule}
    state |= {f"bottleneck.to_logits.{kind}": state.pop(f"logits.{kind}") for kind in ("weight", "bias")}
    channels = state["bottleneck.to_logits.weight"].shape[1]
    return {"kind": "categorical", **size, "logits": "convolution", "in_channels": channels}


def _options(state: dict[str, Tensor], format: Format) -> dict[str, Any]:
    """Of `VqganNetworks`, but for what no tensor tells."""
    first, last = _of(state, "encoder.first.weight"), state["encoder.last.weight"]
    widths, depth = _levels(state, "encoder")
    width, halved = math.gcd(*widths), [name for name in state if re.fullmatch(HALVED, name)]
    attention = {int(match[1]) for name in state if (match := re.match(r"encoder\.level(\d+)_attention", name))}
    middle = {match[0] for name in state if (match := re.match(r"encoder\.middle_block\d+", name))}
    details: dict[str, Any] = {
        "halvings": len(halved) if halved else len(widths) - 1,
        "down": format.down if halved or len(widths) == 1 else "average",
        "bias": "encoder.first.bias" in state,
        "shortcut": _shortcut(state),
        "code_kernel": last.shape[-1],
    }
    options: dict[str, Any] = {
        "width": width,
        "multipliers": tuple(channels // width for channels in widths),
        "depth": depth,
        "stem_width": len(first),
        "attention": tuple(sorted(attention)),
        "middle": None if "encoder.middle_attention0.norm.weight" in state else len(middle),
        "latent_channels": len(last),
        "details": details,
    }
    if not format.has_decoder:
        return {**options, "has_decoder": False}
    details["up"] = "shuffle" if _shuffles(state) else "nearest"
    details["adaptive"] = "decoder.level0_style.scale.weight" in state
    mirrored, decoder_depth = _levels(state, "decoder")
    if mirrored != widths:
        raise SmaltiError(f"the levels of its encoder have {widths} channels, those of its decoder {mirrored}")
    return {**options, "decoder_depth": decoder_depth, "last_kernel": _of(state, "decoder.last.weight").shape[-1]}


def _shuffles(state: dict[str, Tensor]) -> bool:
    """Whether upsampling is by channels that become 2x2 positions; these are put in the order of `PixelShuffle`."""
    found = False
    for name, tensor in state.items():
        match = re.fullmatch(r"decoder\.(level\d+)_double\.conv\.(weight|bias)", name)
        into = match and state.get(f"decoder.{match[1]}_double.conv.weight")
        if into is not None and match and len(tensor) == 4 * into.shape[1]:
            found = True
            state[name] = tensor.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
    return found


def _levels(state: Tensors, tower: str) -> tuple[list[int], int]:
    """Channels of each level, and the number of blocks in each."""
    blocks: dict[int, list[int]] = {}
    for name, tensor in state.items():
        if match := re.fullmatch(tower + r"\.level(\d+)_block\d+\.conv1\.weight", name):
            blocks.setdefault(int(match[1]), []).append(len(tensor))
    levels = [blocks.get(level, []) for level in range(1 + max(blocks, default=0))]
    if len({len(own) for own in levels}) > 1 or not levels[0] or any(len(set(own)) > 1 for own in levels):
        raise SmaltiError(
            f"the blocks of the levels of its {tower} have {levels} channels: they must be as many of each"
        )
    return [own[0] for own in levels], len(levels[0])


def _shortcut(state: Tensors) -> str:
    """Of what a block that widens has its shortcut: its input ("before"), or its output ("after")."""
    for name, tensor in state.items():
        if re.fullmatch(r"encoder\.level\d+_block\d+\.shortcut\.weight", name):
            inputs = state.get(name.replace("shortcut", "conv1"), tensor).shape[1]
            return "before" if tensor.shape[1] == inputs else "after"
    return "before"
