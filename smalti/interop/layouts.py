"""How other projects name the layers that `VqganNetworks` has.

Beside the place of a layer in their files stands its place in ours; {L} is the number of a level and {B} that of a
block in it, {L+1} the level after and {-L} the level counted from the coarsest. What comes after a layer's place, as
`conv1.weight`, is the same everywhere but for `PARTS`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

Places = Mapping[str, str]

PARTS = {
    "nin_shortcut": "shortcut",
    "conv_shortcut": "shortcut",
    "group_norm": "norm",
    **{"q": "query", "k": "key", "v": "value", "proj_out": "out", "proj_attn": "out"},
    **{"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"},
}
ENDS = {"conv_in": "first", "norm_out": "norm", "conv_norm_out": "norm", "conv_out": "last"}
MIDDLE = ("middle_block0", "middle_attention0", "middle_block1")  # in the order in which they run
NUMBERS = {"{L}": r"(?P<L>\d+)", "{B}": r"(?P<B>\d+)"}


class Layout(NamedTuple):
    """The names of one family of projects."""

    encoder: Places
    decoder: Places
    codebook: Places


HEADS = {"quant_conv": "encoder.head", "post_quant_conv": "decoder.head"}
TAMING_MIDDLE = dict(zip(("mid.block_1", "mid.attn_1", "mid.block_2"), MIDDLE, strict=True))
TAMING = Layout(
    encoder={
        "down.{L}.block.{B}": "level{L}_block{B}",
        "down.{L}.attn.{B}": "level{L}_attention{B}",
        "down.{L}.downsample": "level{L+1}_halve",
        **TAMING_MIDDLE,
    },
    decoder={
        "up.{L}.block.{B}": "level{L}_block{B}",
        "up.{L}.attn.{B}": "level{L}_attention{B}",
        "up.{L}.upsample": "level{L}_double",
        **TAMING_MIDDLE,
    },
    codebook=HEADS | {"quantize.embedding": "codebook"},
)
GUMBEL = TAMING._replace(codebook=HEADS | {"quantize.proj": "logits", "quantize.embed": "codebook"})
JANUS = TAMING._replace(
    decoder={
        "up.{L}.block.{B}": "level{-L}_block{B}",
        "up.{L}.attn.{B}": "level{-L}_attention{B}",
        "up.{L}.upsample": "level{-L}_double",
        **TAMING_MIDDLE,
    },
)
LLAMAGEN_MIDDLE = {f"mid.{place}": ours for place, ours in enumerate(MIDDLE)}
LLAMAGEN = TAMING._replace(
    encoder={
        "conv_blocks.{L}.res.{B}": "level{L}_block{B}",
        "conv_blocks.{L}.attn.{B}": "level{L}_attention{B}",
        "conv_blocks.{L}.downsample": "level{L+1}_halve",
        **LLAMAGEN_MIDDLE,
    },
    decoder={
        "conv_blocks.{L}.res.{B}": "level{-L}_block{B}",
        "conv_blocks.{L}.attn.{B}": "level{-L}_attention{B}",
        "conv_blocks.{L}.upsample": "level{-L}_double",
        **LLAMAGEN_MIDDLE,
    },
)
DIFFUSERS_MIDDLE = {"mid_block.resnets.{B}": "middle_block{B}", "mid_block.attentions.{B}": "middle_attention{B}"}
DIFFUSERS = TAMING._replace(
    encoder={
        "down_blocks.{L}.resnets.{B}": "level{L}_block{B}",
        "down_blocks.{L}.attentions.{B}": "level{L}_attention{B}",
        "down_blocks.{L}.downsamplers.0": "level{L+1}_halve",
        **DIFFUSERS_MIDDLE,
    },
    decoder={
        "up_blocks.{L}.resnets.{B}": "level{-L}_block{B}",
        "up_blocks.{L}.attentions.{B}": "level{-L}_attention{B}",
        "up_blocks.{L}.upsamplers.0": "level{-L}_double",
        **DIFFUSERS_MIDDLE,
    },
)
MASKGIT = Layout(
    encoder={"down.{L}.block.{B}": "level{L}_block{B}", "mid.{B}": "middle_block{B}"},
    decoder={
        "up.{L}.block.{B}": "level{L}_block{B}",
        "up.{L}.upsample_conv": "level{L}_double.conv",
        "mid.{B}": "middle_block{B}",
    },
    codebook={"quantize.embedding": "codebook"},
)

MAGVIT2 = Layout(
    encoder={
        "down.{L}.block.{B}": "level{L}_block{B}",
        "down.{L}.downsample": "level{L+1}_halve.conv",
        "mid_block.{B}": "middle_block{B}",
    },
    decoder={
        "adaptive.{L}.gamma": "level{L}_style.scale",
        "adaptive.{L}.beta": "level{L}_style.shift",
        "up.{L}.block.{B}": "level{L}_block{B}",
        "up.{L}.upsample.conv1": "level{L}_double.conv",
        "mid_block.{B}": "middle_block{B}",
    },
    codebook={},
)


def renamed(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Our name of each of their names that the layout knows, of a tensor as `encoder.level0_block1.conv1.weight`."""
    towers = {"encoder": layout.encoder, "decoder": layout.decoder}
    places = {f"{tower}.{theirs}": f"{tower}.{ours}" for tower, own in towers.items() for theirs, ours in _all(own)}
    patterns = [(pattern_of(theirs), ours) for theirs, ours in (places | dict(layout.codebook)).items()]
    found = [(name, match, ours) for name in names for pattern, ours in patterns if (match := pattern.fullmatch(name))]
    levels = 1 + max((int(match["L"]) for name, match, _ in found if "L" in match.groupdict()), default=0)
    return {name: ours.format_map(_numbers(match, levels)) + _tail(match["tail"]) for name, match, ours in found}


def _all(places: Places) -> Iterable[tuple[str, str]]:
    return {**places, **ENDS}.items()


def pattern_of(place: str) -> re.Pattern[str]:
    """What fits the names of the tensors of a layer: its numbers as the groups L and B, the rest as `tail`."""
    text = re.escape(place)
    for number, group in NUMBERS.items():
        text = text.replace(re.escape(number), group)
    return re.compile(text + r"(?P<tail>(?:\..+)?)")


def _numbers(match: re.Match[str], levels: int) -> dict[str, object]:
    numbers = {name: int(value) for name, value in match.groupdict().items() if name in "LB"}
    level = numbers.get("L", 0)
    return {**numbers, "L+1": level + 1, "-L": levels - 1 - level}


def _tail(tail: str) -> str:
    layer, dot, kind = tail.lstrip(".").rpartition(".")
    return tail if not dot else f".{PARTS.get(layer, layer)}.{kind}"
