"""The formats of other projects that can be read: what their files look like, and what their names do not say."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from smalti.configs import nearest
from smalti.errors import SmaltiError, shown
from smalti.interop import layouts
from smalti.interop.layouts import Layout, pattern_of
from smalti.interop.parts import Tensors

Values = Literal["signed", "unit", "mapped"]  # pixels as 2x - 1, as x, or as the logits of 0.8x + 0.1
Compare = Literal["distance", "direction", "product"]
MOST_BANDS = 8  # of images; a first layer that takes more takes patches
PATCHES = "another number of channels in its first layer"


@dataclass(frozen=True, kw_only=True)
class Format:
    """The files of one project, or of several that agree.

    Attributes:
        title: whose it is.
        marks: places of layers that such a file has; its names begin with the first.
        without: places that it has not.
        layout: its names; None where the networks are of another kind.
        compare: how the nearest code is found.
        values: of the pixels.
        told: words in a config that say it is this format, where the tensors are also those of another.
        haar: whether its networks see the Haar coefficients of patches.
        levels: of each channel, where it rounds them and its config says no others.
        signs: whether a code is the signs of the channels.
        down: how its encoder halves, where it has convolutions for it.
        has_decoder: whether files have one.
        told_by_config: keys of it that no tensor tells.
        code: the licence of the code.
        weights: that of the published weights, as far as known.
        note: what is worth to know of them.
    """

    title: str
    marks: Sequence[str]
    without: Sequence[str] = ()
    layout: Layout | None
    compare: Compare = "distance"
    values: Values = "signed"
    told: Sequence[str] = ()
    haar: bool = False
    levels: Sequence[int] = ()
    signs: bool = False
    down: Literal["outer", "symmetric"] = "outer"
    has_decoder: bool = True
    told_by_config: Sequence[str] = ()
    code: str
    weights: str
    note: str = ""

    def beginnings(self, tensors: Tensors) -> list[str]:
        """What stands before the names of each set of tensors in this format: "", "model.", ..."""
        return [begin for begin, lacking in self.lacking(tensors).items() if not lacking]

    def lacking(self, tensors: Tensors) -> dict[str, list[str]]:
        """Of each set of tensors with the first mark, by what stands before their names: what they lack, or should."""
        first = re.compile(rf"(?P<before>(?:.+\.)?){pattern_of(self.marks[0]).pattern}")
        found = {}
        for begin in sorted({match["before"] for name in tensors if (match := first.fullmatch(name))}):
            own = {name[len(begin) :]: tensor for name, tensor in tensors.items() if name.startswith(begin)}
            lacking = [place for place in self.marks if not _stands(place, own)]
            lacking += [f"no {place}" for place in self.without if _stands(place, own)]
            stem = own.get(f"{self.marks[0]}.weight")
            if (stem is not None and stem.ndim == 4 and stem.shape[1] > MOST_BANDS) != self.haar:
                lacking += [PATCHES, "others"]  # further away than what lacks a layer
            found[begin] = lacking
        return found


def _stands(place: str, names: Iterable[str]) -> bool:
    return any(map(pattern_of(place).fullmatch, names))


VECTORS = "quantize.embedding"
TAMING = ("encoder.conv_in", "encoder.down.{L}.block.{B}", "encoder.mid.block_1", "quant_conv")
TAMING_WHOLE = (*TAMING, "decoder.up.{L}.block.{B}")
RUNNING_ORDER = "decoder.up.0.upsample"  # of levels counted from the coarsest; taming's begin with the finest

FORMATS: dict[str, Format] = {
    "openai": Format(
        title="OpenAI's dVAE (DALL-E)",
        marks=("encoder.blocks.input", "encoder.blocks.group_{L}.block_{B}", "decoder.blocks.input"),
        layout=None,
        values="mapped",
        code="modified MIT",
        weights="modified MIT",
    ),
    "taming": Format(
        title="VQGAN (taming-transformers, minDALL-E, dalle-mini)",
        marks=(*TAMING_WHOLE, VECTORS),
        without=(RUNNING_ORDER,),
        layout=layouts.TAMING,
        told=("taming.models.vqgan",),
        code="MIT",
        weights="MIT, not checked",
    ),
    "taming_gumbel": Format(
        title="VQGAN with a Gumbel quantizer (taming-transformers)",
        marks=(*TAMING_WHOLE, "quantize.proj", "quantize.embed"),
        without=(RUNNING_ORDER,),
        layout=layouts.GUMBEL,
        code="MIT",
        weights="MIT, not checked",
        note="codes are the likeliest, as DALL-E's; its own code samples them",
    ),
    "ibq": Format(
        title="IBQ",
        marks=(*TAMING_WHOLE, VECTORS),
        without=(RUNNING_ORDER,),
        layout=layouts.TAMING,
        compare="product",
        told=("ibq", "indexpropagation"),
        code="Apache-2.0",
        weights="Apache-2.0",
    ),
    "janus": Format(
        title="Janus (transformers)",
        marks=(*TAMING_WHOLE, VECTORS, RUNNING_ORDER),
        layout=layouts.JANUS,
        compare="direction",
        code="Apache-2.0",
        weights="DeepSeek model licence, not checked",
        note="codes by direction, as it was trained; transformers normalises when it decodes, not when it encodes",
    ),
    "chameleon": Format(
        title="Chameleon's encoder (transformers)",
        marks=(*TAMING, VECTORS),
        without=("decoder.conv_in",),
        layout=layouts.TAMING,
        has_decoder=False,
        code="Apache-2.0",
        weights="research only, not checked",
        note="transformers has no decoder for it; convert the vqgan.ckpt of the original files to have both",
    ),
    "diffusers": Format(
        title="VQModel (diffusers: amused, VQ-Diffusion)",
        marks=("encoder.conv_in", "encoder.down_blocks.{L}.resnets.{B}", "decoder.up_blocks.{L}.resnets.{B}", VECTORS),
        layout=layouts.DIFFUSERS,
        told_by_config=("norm_num_groups",),
        code="Apache-2.0",
        weights="the model's card says it",
    ),
    "llamagen": Format(
        title="LlamaGen (VQ-8, VQ-16; Janus as first published)",
        marks=("encoder.conv_in", "encoder.conv_blocks.{L}.res.{B}", "decoder.conv_blocks.{L}.res.{B}", VECTORS),
        layout=layouts.LLAMAGEN,
        compare="direction",
        code="MIT",
        weights="MIT, not checked",
    ),
    "maskgit": Format(
        title="MaskGIT-VQGAN (open-muse, TiTok's stage 0)",
        marks=("encoder.conv_in", "encoder.down.{L}.block.{B}", "encoder.mid.{B}", "decoder.conv_in", VECTORS),
        layout=layouts.MASKGIT,
        values="unit",
        code="Apache-2.0",
        weights="Apache-2.0",
    ),
    "open_magvit2": Format(
        title="Open-MAGVIT2",
        marks=("encoder.conv_in", "encoder.down.{L}.block.{B}", "encoder.mid_block.{B}", "decoder.adaptive.{L}"),
        layout=layouts.MAGVIT2,
        signs=True,
        down="symmetric",
        code="Apache-2.0",
        weights="Apache-2.0",
    ),
    "cosmos": Format(
        title="Cosmos DI (discrete images)",
        marks=TAMING_WHOLE,
        without=(VECTORS, "quantize.proj"),
        layout=layouts.TAMING,
        haar=True,
        levels=(8, 8, 8, 5, 5, 5),
        code="Apache-2.0",
        weights="NVIDIA open model licence",
        note="its .jit files are programs, and are not opened: take the tensors of its .pt file",
    ),
}


class Recognised(NamedTuple):
    """A format that fits, and what stands before the names of its tensors."""

    format: Format
    begin: str
    notes: list[str]


def recognised(tensors: Tensors, settings: Mapping[str, Any], kind: str | None = None) -> Recognised:
    """The format of a file.

    Args:
        tensors: by the names of the file.
        settings: its config, for formats with the same names.
        kind: the format's name, where neither tells.

    Raises:
        SmaltiError: none fits, an unknown `kind`, or one that does not fit.
    """
    if kind is not None and kind not in FORMATS:
        raise SmaltiError(f"unknown kind {shown(kind)}; {nearest(kind, FORMATS)}")
    begins = {name: found for name, own in FORMATS.items() if (found := own.beginnings(tensors))}
    fitting = begins if kind is None else {name: found for name, found in begins.items() if name == kind}
    if not fitting:
        what = f"its tensors are not those of {kind}" if kind else "its tensors are of no known kind"
        raise SmaltiError(f"{what}: {_most_like(tensors, begins)}")
    text = json.dumps(settings, default=str).lower()
    told = [name for name in fitting if any(word in text for word in FORMATS[name].told)]
    chosen = told[0] if told else next(iter(fitting))
    notes = [f"{other} has the same names: --kind {other} if it is one" for other in fitting if other != chosen]
    notes = [] if told or kind else notes
    begin = _preferred(fitting[chosen])
    if rest := [other or "no prefix" for other in fitting[chosen] if other != begin]:
        notes.append(f"{begin or 'no prefix'} taken, not {', '.join(rest)}")
    return Recognised(FORMATS[chosen], begin, notes)


def _most_like(tensors: Tensors, begins: Mapping[str, list[str]]) -> str:
    """What tensors that are refused may be instead."""
    if begins:
        return f"they are those of {' or '.join(begins)}"
    like = [(len(own), name, own) for name, format in FORMATS.items() for own in format.lacking(tensors).values()]
    if not like:
        return f"known are {', '.join(FORMATS)}; the first of its tensors: {shown([*tensors][:3])}"
    _, name, lacking = min(like)
    return f"most like {FORMATS[name].title}, which has {', '.join(lacking)}"


def _preferred(begins: Sequence[str]) -> str:
    """Averages of a training before its last step."""
    return next((begin for begin in begins if "ema" in begin), begins[0])
