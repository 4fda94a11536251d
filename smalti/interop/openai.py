"""OpenAI's dVAE: the networks of DALL-E, whose names and pixels are its own."""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from smalti.errors import SmaltiError
from smalti.interop.formats import Compare, Format
from smalti.interop.parts import Parts, Tensors, codebook_state, identity

GREY, CONTRAST = -0.125, 0.8  # pixels x come in as 0.8 x + 0.1, which is 0.8 (x - GREY)
BLOCK = re.compile(r"(encoder|decoder)\.blocks\.group_(\d+)\.block_(\d+)\.(id_path|res_path\.conv_(\d+))\.([wb])")
KINDS = {"w": "weight", "b": "bias"}


def our_names(tensors: Tensors, format: Format) -> dict[str, str]:
    """Our name of each of their tensors that has a place; the decoder's first layer holds the vectors of the codes."""
    groups, depth = _groups(tensors)
    end = groups * (depth + 1) + 1  # a block or what stands between two groups is a place in the Sequential
    layers = {"encoder.blocks.input": "encoder.0", "encoder.blocks.output.conv": f"encoder.{end}"}
    layers |= {"decoder.blocks.output.conv": f"decoder.{end}"}
    found = {f"{theirs}.{kind}": f"{ours}.{KINDS[kind]}" for theirs, ours in layers.items() for kind in KINDS}
    found |= {"decoder.blocks.input.w": "codebook.weight", "decoder.blocks.input.b": "decoder.0.bias"}
    for name in tensors:
        if match := BLOCK.fullmatch(name):
            tower, group, block, part, convolution, kind = match.groups()
            place = 1 + (int(group) - 1) * (depth + 1) + int(block) - 1
            layer = "shortcut" if part == "id_path" else f"convolutions.{int(convolution) - 1}"
            found[name] = f"{tower}.{place}.{layer}.{KINDS[kind]}"
    return {name: found[name] for name in tensors if name in found}


def _groups(tensors: Tensors) -> tuple[int, int]:
    """The groups of the encoder, and the blocks in each."""
    places = [match for name in tensors if (match := BLOCK.fullmatch(name)) and match[1] == "encoder"]
    return len({match[2] for match in places}), len({match[3] for match in places})


def parts_of(tensors: Tensors, format: Format, settings: Mapping[str, Any], compare: Compare | None) -> Parts:
    """The parts of an autoencoder, of tensors by our names.

    The decoder's first layer, of one-hot latents, becomes the vectors of the codes: an image of 256 pixels would
    otherwise have latents of 34 MB.

    Raises:
        SmaltiError: a tensor that tells how the networks are is missing.
    """
    if compare is not None:
        raise SmaltiError(f"compare {compare} has no effect on a dVAE, whose codes are the likeliest; leave it out")
    blocks = sorted({int(name.split(".")[1]) for name in tensors if re.match(r"encoder\.\d+\.convolutions", name)})
    groups = 1 + sum(after - before > 1 for before, after in itertools.pairwise(blocks))
    convolutions = {name.split(".")[3] for name in tensors if re.match(r"encoder\.1\.convolutions", name)}
    try:
        stem, lift = tensors["encoder.0.weight"], tensors["codebook.weight"]
        inner = tensors["encoder.1.convolutions.0.weight"]
    except KeyError as error:
        raise SmaltiError(f"the tensor of {error} is missing; is the file complete?") from None
    networks = {
        "kind": "residual",
        "stride": 2 ** (groups - 1),
        "width": len(stem),
        "depth": len(blocks) // groups,
        "block_ratio": max(1, len(stem) // len(inner)),
        "convolutions": len(convolutions),
        "stem_kernel": stem.shape[-1],
        "grey": GREY,
        "decoder_width": len(lift),
    }
    vectors = lift.flatten(1).T
    bottleneck = {
        "kind": "categorical",
        "codebook_size": len(vectors),
        "code_dim": vectors.shape[1],
        "logits": "features",
    }
    state = {name: tensor for name, tensor in tensors.items() if name != "codebook.weight"}
    state |= {"encoder.0.weight": CONTRAST * stem, "decoder.0.weight": identity(len(lift))}
    return Parts(networks, bottleneck, {"kind": "logit_laplace"}, state | codebook_state(vectors))
