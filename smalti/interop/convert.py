"""Tensors of another project's tokenizer as an `Autoencoder`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smalti.errors import SmaltiError, shown
from smalti.images.preprocessing import Preprocessing
from smalti.interop import openai, vqgan
from smalti.interop.flax import as_pytorch
from smalti.interop.formats import Compare, Format, Recognised, recognised
from smalti.interop.parts import Parts, TensorError, Tensors, said
from smalti.interop.weights import Weights
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.outlines import Valueless, about

IMAGE_SIZE = 256  # of the images that it was trained on, where nothing says another
SIZE_KEYS = ("image_size", "resolution", "sample_size", "crop_size")  # of a config
VECTORS_KEYS = ("num_vq_embeddings", "n_embed", "codebook_size", "num_embeddings", "n_e")
TOWERS = ("encoder.", "decoder.", "quant", "post_quant")  # of these nothing may be left over
COUNTS = (  # but these
    *("codebook_used", "cluster_size", "embed_avg", "embed_prob", "num_batches_tracked"),
    *("wavelets", "_arange", "_levels", "_basis", "implicit_codebook", ".mask", ".zero"),
)
AVERAGES = "model_ema."
MADE = ("likelihood.", "bottleneck.temperature")  # tensors that an autoencoder makes itself


class Converted(NamedTuple):
    """An autoencoder, and what it was made of."""

    model: Autoencoder
    format: Format
    used: int  # tensors
    left_out: dict[str, int]  # tensors, by what begins their names
    notes: list[str]

    @property
    def in_words(self) -> str:
        """The size of its codes: "f16, K = 16,384, D = 256, compared by distance"."""
        bottleneck, compare = self.model.codes_bottleneck, self.model.config.bottleneck.get("compare")
        words = f"f{self.model.stride}, K = {bottleneck.codebook_size:,}, D = {bottleneck.out_channels}"
        return words + (f", compared by {compare}" if compare else "")


def converted(
    weights: Weights, kind: str | None = None, *, compare: Compare | None = None, image_size: int | None = None
) -> Converted:
    """The tokenizer in foreign weights, recognised by the names and shapes of its tensors.

    Args:
        weights: of `read_weights`.
        kind: a member of `FORMATS`, where several have the same names.
        compare: how the nearest code is found, where it is not as the format says.
        image_size: of the images that it was trained on; by default what its config says, or 256.

    Raises:
        SmaltiError: no format fits; a tensor is missing, left over, of another shape, or holds no finite numbers.
    """
    with about(weights.path):
        given = as_pytorch(weights.tensors)
        found = recognised(given, weights.settings, kind)
        own, left_out, notes = _own(given, found)
        format = found.format
        family = openai if format.layout is None else vqgan
        names = family.our_names(own, format)
        rest = [name for name in own if name not in names]
        if lost := [name for name in rest if _is_needed(name, format)]:
            what = f"{len(lost)} of its tensors have no place in {format.title}, the first is {shown(lost[0])}"
            raise SmaltiError(f"{what}; it may be another kind of network")
        tensors = {ours: _finite(own[theirs], theirs) for theirs, ours in names.items()}
        try:
            parts = family.parts_of(tensors, format, weights.settings, compare)
            model = _assembled(parts, _config(parts, weights.settings, image_size))
        except TensorError as error:
            theirs = shown(family.their_name(error.name, names, format))
            raise SmaltiError(f"{theirs} {error.fault}; is the file whole, and of this kind?") from error
        _check_codebook(model, weights.settings)
    left_out += Counter(_beginning(name) for name in rest)
    untold = [key for key in format.told_by_config if said(weights.settings, (key,)) is None]
    notes += [f"no config says {key}: the usual one taken" for key in untold]
    notes = [*found.notes, *notes, *([format.note] if format.note else [])]
    return Converted(model, format, len(names), dict(left_out), notes)


def _own(tensors: Tensors, found: Recognised) -> tuple[dict[str, Tensor], Counter[str], list[str]]:
    """The format's tensors by its names, with averages of the training in place of its last step where complete."""
    own = {name[len(found.begin) :]: tensor for name, tensor in tensors.items() if name.startswith(found.begin)}
    left_out = Counter(_beginning(name) for name in tensors if not name.startswith(found.begin))
    averages = {name: own.pop(name) for name in list(own) if name.startswith(AVERAGES)}
    if not averages:
        return own, left_out, []
    needed = [name for name in own if _is_needed(name, found.format)]
    averaged = {name: AVERAGES + name.replace(".", "") for name in needed}
    left_out[AVERAGES] += len(averages)
    if missing := [average for average in averaged.values() if average not in averages]:
        what = f"{len(missing)} of the averages {AVERAGES} are missing, the first is {shown(missing[0])}"
        return own, left_out, [f"raw weights taken: {what}"]
    own |= {name: averages[average] for name, average in averaged.items()}
    return own, left_out, [f"averages taken ({AVERAGES}), not the raw weights"]


def _is_needed(name: str, format: Format) -> bool:
    towers = TOWERS if format.has_decoder else TOWERS[:1] + TOWERS[2:3]
    return name.startswith(towers) and not name.endswith(COUNTS)


def _beginning(name: str) -> str:
    return f"{name.split('.')[0]}."


def _finite(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point() or not tensor.numel():
        raise SmaltiError(f"{shown(name)} holds {tensor.numel()} numbers of type {tensor.dtype}, no real ones")
    values = tensor.float()
    if not bool(torch.stack(torch.aminmax(values)).isfinite().all()):
        raise SmaltiError(f"{shown(name)} holds NaN or infinity; fetch the file again")
    return values


def _check_codebook(model: Autoencoder, settings: Mapping[str, Any]) -> None:
    """Refuse another number of codes than the config says."""
    found, told = model.codes_bottleneck.codebook_size, said(settings, VECTORS_KEYS)
    if told is not None and told != found:
        raise SmaltiError(f"there are {found} codes, and its config says {told}; take both from one model")


def _config(parts: Parts, settings: Mapping[str, Any], image_size: int | None) -> AutoencoderConfig:
    stem = next(parts.tensors[name] for name in ("encoder.first.weight", "encoder.0.weight") if name in parts.tensors)
    size = image_size or said(settings, SIZE_KEYS) or IMAGE_SIZE
    channels = stem.shape[1] // parts.networks.get("patch", 1) ** 2
    return AutoencoderConfig(
        networks=parts.networks,
        bottleneck=parts.bottleneck,
        likelihood=parts.likelihood,
        preprocessing=Preprocessing(image_size=size, channels=channels),
    )


def _assembled(parts: Parts, config: AutoencoderConfig) -> Autoencoder:
    """The autoencoder with its weights, whose names and shapes are compared before memory is taken.

    Raises:
        TensorError: a tensor too many, too few, or of another shape.
    """
    with torch.device("meta"), Valueless():
        wanted = {name: tuple(tensor.shape) for name, tensor in Autoencoder(config).state_dict().items()}
    for name, tensor in parts.tensors.items():
        if name not in wanted:
            raise TensorError(name, "has no place beside the other tensors")
        if wanted[name] != tuple(tensor.shape):
            raise TensorError(name, f"has the shape {tuple(tensor.shape)} instead of {wanted[name]}")
    for name in wanted:
        if name not in parts.tensors and not name.startswith(MADE):
            raise TensorError(name, "is missing")
    model = Autoencoder(config)
    model.load_state_dict(model.state_dict() | parts.tensors)
    return model.eval()
