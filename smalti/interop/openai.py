"""OpenAI's dVAE: the networks of DALL-E, whose names and pixels are its own."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from smalti.errors import SmaltiError
from smalti.interop.formats import Compare, Format
from smalti.interop.parts import Parts, TensorError, Tensors, codebook_state, identity

GREY, CONTRAST = -0.125, 0.8  # pixels x come in as 0.8 x + 0.1, which is 0.8 (x - GREY)
BLOCK = re.compile(r"encoder\.blocks\.group_(\d+)\.block_(\d+)\..*")
KINDS = {"w": "weight", "b": "bias"}
CONVOLUTIONS = 16  # at most, in a block; DALL-E has 4


def our_names(tensors: Tensors, format: Format) -> dict[str, str]:
    """Our name of each of their tensors that has a place; the decoder's first layer holds the vectors of the codes."""
    table = _table(tensors)
    return {name: table[name] for name in tensors if name in table}


def their_name(ours: str, names: Mapping[str, str], format: Format) -> str:
    """What a file calls a tensor of ours, also one that it lacks.

    Args:
        ours: the name of the tensor.
        names: ours of theirs, of the tensors that the file has: they tell how many groups there are.
        format: of the file.
    """
    return {own: theirs for theirs, own in _table(names).items()}.get(ours, ours)


def _table(names: Iterable[str]) -> dict[str, str]:
    """Our names by theirs, of networks with the groups and blocks of the encoder in these names."""
    places = [match for name in names if (match := BLOCK.fullmatch(name))]
    groups, depth = (range(1, 1 + len({match[number] for match in places})) for number in (1, 2))
    end = len(groups) * (len(depth) + 1) + 1  # a block, or what stands between two groups, is a place in the Sequential
    layers = {"encoder.blocks.input": "encoder.0", "decoder.blocks.input": "decoder.0"}
    layers |= {f"{tower}.blocks.output.conv": f"{tower}.{end}" for tower in ("encoder", "decoder")}
    parts = {"id_path": "shortcut"} | {f"res_path.conv_{1 + at}": f"convolutions.{at}" for at in range(CONVOLUTIONS)}
    for tower, group, block, (theirs, ours) in itertools.product(("encoder", "decoder"), groups, depth, parts.items()):
        place = (group - 1) * (len(depth) + 1) + block
        layers[f"{tower}.blocks.group_{group}.block_{block}.{theirs}"] = f"{tower}.{place}.{ours}"
    table = {f"{theirs}.{kind}": f"{ours}.{KINDS[kind]}" for theirs, ours in layers.items() for kind in KINDS}
    return table | {"decoder.blocks.input.w": "codebook.weight"}


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
    for name in ("encoder.0.weight", "codebook.weight", "encoder.1.convolutions.0.weight"):
        if name not in tensors:
            raise TensorError(name, "is missing")
    stem, lift = tensors["encoder.0.weight"], tensors["codebook.weight"]
    inner = tensors["encoder.1.convolutions.0.weight"]
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
