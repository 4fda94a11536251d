"""How other projects name the layers that `VqganNetworks` has.

Beside the place of a layer in their files stands its place in ours; {L} is the number of a level and {B} that of a
block in it, {L+1} the level after and {-L} the level counted from the coarsest. What comes after a layer's place, as
`conv1.weight`, is the same everywhere but for the parts that a layout names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Places = Mapping[str, str]

TAMING_PARTS = {"nin_shortcut": "shortcut", "q": "query", "k": "key", "v": "value", "proj_out": "out"}
TAMING_ENDS = {"conv_in": "first", "norm_out": "norm", "conv_out": "last"}
MIDDLE = ("middle_block0", "middle_attention0", "middle_block1")  # in the order in which they run
TURNED = {"{L}": "{L}", "{L+1}": "{L-1}", "{-L}": "{-L}"}  # numbers of ours, and what makes theirs of them
NUMBERS = {"{L}": r"(?P<L>\d+)", "{B}": r"(?P<B>\d+)"}


class Layout(NamedTuple):
    """The names of one family of projects."""

    encoder: Places
    decoder: Places
    codebook: Places
    ends: Places = TAMING_ENDS  # of both networks
    parts: Places = TAMING_PARTS  # of a layer


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
    ends={"conv_in": "first", "conv_norm_out": "norm", "conv_out": "last"},
    parts={
        **{"conv_shortcut": "shortcut", "group_norm": "norm", "proj_attn": "out"},  # the last one is of older versions
        **{"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"},
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
    return _translated(names, _places(layout), layout.parts)


def foreign(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """The inverse of `renamed`: their name of each of our names that the layout knows."""
    places = [_turned(theirs, ours) for theirs, ours in _places(layout)]
    return _translated(names, places, {ours: theirs for theirs, ours in layout.parts.items()})


def _places(layout: Layout) -> list[tuple[str, str]]:
    """Of layers: theirs and ours, whole."""
    towers = {"encoder": layout.encoder, "decoder": layout.decoder}
    inside = [(tower, place) for tower, own in towers.items() for place in {**own, **layout.ends}.items()]
    return [*((f"{tower}.{theirs}", f"{tower}.{ours}") for tower, (theirs, ours) in inside), *layout.codebook.items()]


def _turned(theirs: str, ours: str) -> tuple[str, str]:
    """A row of the table the other way round."""
    for number, back in TURNED.items():
        if number in ours:
            return ours.replace(number, "{L}"), theirs.replace("{L}", back)
    return ours, theirs


def _translated(names: Iterable[str], places: Sequence[tuple[str, str]], parts: Places) -> dict[str, str]:
    patterns = [(pattern_of(before), after) for before, after in places]
    found = [
        (name, match, after) for name in names for pattern, after in patterns if (match := pattern.fullmatch(name))
    ]
    levels = 1 + max((int(match["L"]) for _, match, _ in found if "L" in match.groupdict()), default=0)
    return {
        name: after.format_map(_numbers(match, levels)) + _tail(match["tail"], parts) for name, match, after in found
    }


def pattern_of(place: str) -> re.Pattern[str]:
    """What fits the names of the tensors of a layer: its numbers as the groups L and B, the rest as `tail`."""
    text = re.escape(place)
    for number, group in NUMBERS.items():
        text = text.replace(re.escape(number), group)
    return re.compile(text + r"(?P<tail>(?:\..+)?)")


def _numbers(match: re.Match[str], levels: int) -> dict[str, object]:
    numbers = {name: int(value) for name, value in match.groupdict().items() if name in "LB"}
    level = numbers.get("L", 0)
    return {**numbers, "L+1": level + 1, "L-1": level - 1, "-L": levels - 1 - level}


def _tail(tail: str, parts: Places) -> str:
    layer, dot, kind = tail.lstrip(".").rpartition(".")
    return tail if not dot else f".{parts.get(layer, layer)}.{kind}"
