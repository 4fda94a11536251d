"""Autoencoders and priors as ONNX graphs, for programs that have neither PyTorch nor smalti.

Every graph is run by onnxruntime before it is handed over, and refused where its results are not those of the model.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smalti
from smalti.errors import SmaltiError, reason
from smalti.files import write_json
from smalti.interop.check import pictures
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.models.bottlenecks.grids import flatten_grid
from smalti.modes import using
from smalti.priors.base import CausalPrior, MaskedPrior
from smalti.priors.code_model import CodeModel

ENCODER, DECODER, CODEBOOK, LOGITS, RECORD = (
    "encoder.onnx", "decoder.onnx", "codebook.npy", "logits.onnx", "graphs.json"
)  # fmt: skip
FILES = (ENCODER, DECODER, CODEBOOK, LOGITS, RECORD)
OPSET = 20
LARGEST_BYTES = (1 << 31) - (1 << 20)  # of weights: a file of this format is shorter than 2 GB
REMEDY = "parts of one's own must not look at values, and read sizes from shapes (docs/studio.md)"
MOST_NUMBERS = 1 << 25  # of all code vectors together; of more there is no file of them
TIE, TRIES = 1e-5, 64  # by how much of their size numbers are moved to see whether a code is a tie; how often
LARGEST_DIFFERENCE = 1e-4  # of pixels in [0, 1], of latents in their deviation, of log-probabilities in nats


class Encoder(nn.Module):
    """Images (B, C, H, W) in [0, 1], H and W multiples of the stride, to codes (B, *grid), or latents (B, D, h, w)."""

    def __init__(self, model: Autoencoder):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Codes; latents where the model has no codes."""
        features, bottleneck = self.model.features(images), self.model.bottleneck
        if isinstance(bottleneck, DiscreteBottleneck):
            return bottleneck.encode(features)
        return bottleneck(features).latents


class Decoder(nn.Module):
    """Codes (B, *grid), or latents (B, D, h, w), to images (B, C, H, W) in [0, 1]."""

    def __init__(self, model: Autoencoder):
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor) -> Tensor:
        """Images."""
        bottleneck = self.model.bottleneck
        latents = bottleneck.decode(codes) if isinstance(bottleneck, DiscreteBottleneck) else codes
        return self.model.likelihood.mean(self.model.decoder(latents))


class Logits(nn.Module):
    """Codes (B, h, w), and their condition, to the logits (B, h, w, K) of `CausalPrior.logits`."""

    def __init__(self, prior: CausalPrior):
        super().__init__()
        self.prior = prior

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """The logits of all positions."""
        return self.prior.logits(codes, condition)


class MaskedLogits(nn.Module):
    """Codes (B, h, w), which are known (B, h, w), and their condition, to the logits of `MaskedPrior.logits`."""

    def __init__(self, prior: MaskedPrior):
        super().__init__()
        self.prior = prior

    def forward(self, codes: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        """The logits of all positions."""
        return self.prior.logits(codes, known, condition)


def write(model: Autoencoder | CodeModel, folder: Path) -> dict[str, Any]:
    """Write a model's graphs and `graphs.json`, which says what they take, into a folder; what was compared.

    Of an autoencoder `encoder.onnx` (images to codes), `decoder.onnx` (codes to images) and `codebook.npy`, (q, K, D)
    float32; of a model without codes the graphs have latents in their place. Of a prior `logits.onnx`.

    Raises:
        SmaltiError: PyTorch has no translation of a part, the weights are too large, or onnxruntime gives other values.
    """
    _needed()
    if sum(weights.numel() * weights.element_size() for weights in model.state_dict().values()) > LARGEST_BYTES:
        raise SmaltiError("this model has 2 GB of weights or more, which a file of ONNX cannot hold; torch.export can")
    with using(model) as still:
        if isinstance(still, CodeModel):
            return _write_prior(still, folder)
        return _write_autoencoder(still, folder)


def described(model: Autoencoder) -> dict[str, Any]:
    """What a program that runs the graphs of an autoencoder has to know of it, for JSON."""
    networks, bottleneck = model.networks, model.bottleneck
    about = {
        "smalti": "graphs",
        "version": smalti.__version__,
        "model_hash": model.source_hash,
        "channels": model.config.preprocessing.channels,
        "image_size": list(model.config.preprocessing.size),
        "fixed_size": networks.fixed_size and list(networks.fixed_size),
        "grid": list(model.grid),
        "stride": model.stride,
        "reach": networks.reach,
        "has_decoder": networks.has_decoder,
    }
    if not isinstance(bottleneck, DiscreteBottleneck):
        return {**about, "latents": bottleneck.out_channels}
    return {**about, "codebook_size": bottleneck.codebook_size, "num_codebooks": bottleneck.num_codebooks,
            "axes": bottleneck.code_axes}  # fmt: skip


def _write_autoencoder(model: Autoencoder, folder: Path) -> dict[str, Any]:
    about, discrete = described(model), isinstance(model.bottleneck, DiscreteBottleneck)
    name, stride = "codes" if discrete else "latents", model.stride
    batch, rows, columns = (torch.export.Dim(word) for word in ("batch", "rows", "columns"))
    fixed = model.networks.fixed_size is not None
    images = _examples(model, 2, _sizes(model)[0])
    codes = Encoder(model)(images)
    sizes = {0: batch} if fixed else {0: batch, 2: stride * rows, 3: stride * columns}
    grid = {0: batch} if fixed else {0: batch, codes.ndim - 2: rows, codes.ndim - 1: columns}
    _graph(Encoder(model), {"images": images}, {"images": sizes}, name, folder / ENCODER)
    if model.networks.has_decoder:
        _graph(Decoder(model), {"codes": codes}, {"codes": grid}, "images", folder / DECODER, names=[name])
    if discrete and about["num_codebooks"] * about["codebook_size"] * model.bottleneck.out_channels <= MOST_NUMBERS:
        np.save(folder / CODEBOOK, model.codes_bottleneck.decode_each().numpy())
    found = _compared(model, folder)
    write_json(folder / RECORD, about)
    return found


def _write_prior(model: CodeModel, folder: Path) -> dict[str, Any]:
    prior, generator = model.prior, torch.Generator().manual_seed(0)
    codes = torch.randint(prior.codebook_size, (3, *prior.grid), generator=generator)
    inputs = {"codes": codes}
    if isinstance(prior, CausalPrior):
        logits: nn.Module = Logits(prior)
    elif isinstance(prior, MaskedPrior):
        logits = MaskedLogits(prior)
        inputs["known"] = torch.rand(codes.shape, generator=generator) < torch.tensor([0, 0.3, 0.7]).view(3, 1, 1)
    else:
        raise SmaltiError(f"{type(prior).__name__} has no logits: derive it from CausalPrior or MaskedPrior")
    if prior.conditions.count:
        shape = (3,) if prior.conditions.length is None else (3, prior.conditions.length)
        inputs["condition"] = torch.randint(-1, prior.conditions.count, shape, generator=generator)
    batch = torch.export.Dim("batch")
    _graph(logits, inputs, {name: {0: batch} for name in inputs}, "logits", folder / LOGITS)
    fewer = {name: value[1:] for name, value in inputs.items()}
    ours, theirs = logits(*fewer.values()), Graph(folder / LOGITS)(*fewer.values())
    largest = float((ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max())
    if not largest <= LARGEST_DIFFERENCE:
        raise SmaltiError(f"onnxruntime's log-probabilities differ from the model's by {largest:.2g} nats")
    condition = [prior.conditions.count, prior.conditions.length]
    about = {"smalti": "graphs", "version": smalti.__version__, "model_hash": model.source_hash,
             "tokenizer_hash": model.config.tokenizer_hash, "inputs": list(inputs),
             "codebook_size": prior.codebook_size, "grid": list(prior.grid), "condition": condition}  # fmt: skip
    write_json(folder / RECORD, about)
    return {"largest_difference_nats": largest}


# ------------------------------------------------------------------ graphs


class Graph:
    """A graph in a file, as a function of tensors, run by onnxruntime on one thread."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes are not public
            raise SmaltiError(f"onnxruntime does not take the graph {path.name}: {reason(error)}") from error

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The one output."""
        names = [own.name for own in self.session.get_inputs()]
        given = {name: value.contiguous().numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(np.asarray(self.session.run(None, given)[0]))


def _needed() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SmaltiError(f"ONNX graphs need {error.name}: pip install 'smalti[export]'") from error


def _graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    sizes: Mapping[str, Mapping[int, Any]],
    output: str,
    path: Path,
    names: list[str] | None = None,
) -> None:
    """Write a module as a graph.

    Args:
        module: whose forward takes the inputs, in this order.
        inputs: examples by name.
        sizes: of each input, the axes that may have any size.
        output: the name of what it gives.
        path: of the file.
        names: of the inputs in the graph, where they are others.
    """
    try:
        with _quiet():
            program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=dict(sizes))
            graph = torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=OPSET,
                input_names=names or list(inputs), output_names=[output],
            )  # fmt: skip
            assert graph is not None
            graph.save(str(path), external_data=False)
    except Exception as error:  # of the tracer, of the translation, of the module: they share no base class
        raise SmaltiError(f"{path.name} cannot be made of this model: {reason(error)}; {REMEDY}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch says of itself while it exports."""
    names = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # a whole graph, where it fails
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


# ------------------------------------------------------------------ comparison


class Differences(NamedTuple):
    """What onnxruntime makes of images, beside what the model makes of them."""

    codes: int  # that were compared
    ties: int  # that differ where a change as small as rounding makes the same difference
    faults: int  # that differ otherwise
    largest: float  # of pixels, or of latents in units of their deviation

    def __add__(self, other: "Differences") -> "Differences":  # pyright: ignore[reportIncompatibleMethodOverride]
        codes, ties, faults = (one + another for one, another in zip(self[:3], other[:3], strict=True))
        return Differences(codes, ties, faults, max(self.largest, other.largest))


def differences(
    model: Autoencoder, encoder: Graph, decoder: Graph | None, images: Tensor, tie: float = TIE
) -> Differences:
    """Compare graphs with their model, in eval mode, on images (B, C, H, W) of a size that it takes as they are.

    `tie` is as of `code_faults`.
    """
    features = model.features(images)
    ours, theirs = Encoder(model)(images), encoder(images)
    found = Differences(ours.numel(), 0, 0, 0.0)
    if isinstance(model.bottleneck, DiscreteBottleneck):
        faults, ties = code_faults(model.bottleneck, features, ours, theirs, tie)
        found = Differences(ours.numel(), ties, faults, 0.0)
    else:
        found = Differences(0, 0, 0, float((ours - theirs).abs().max() / ours.std().clamp(min=1e-12)))
    if decoder is None:
        return found
    return found + Differences(0, 0, 0, float((Decoder(model)(ours) - decoder(ours)).abs().max()))


@torch.no_grad()
def code_faults(
    bottleneck: DiscreteBottleneck, features: Tensor, ours: Tensor, theirs: Tensor, tie: float = TIE
) -> tuple[int, int]:
    """How many positions differ for no reason, and how many by ties.

    A tie is a position that has the others' codes once its features and the bottleneck's weights are moved at random,
    as rounding moves them, or one to whose features what the two codes stand for is equally near, in float64.

    Args:
        bottleneck: in eval mode.
        features: (B, C, h, w).
        ours: their codes (B, *grid).
        theirs: the codes to compare with, in which no more than one position in a hundred may be a tie.
        tie: by how much of their size they are moved; how nearly equal what is equally near has to be.
    """
    if ours.shape != theirs.shape:
        return ours.numel(), 0
    differ = (ours != theirs).reshape(len(ours), -1, *ours.shape[-2:]).any(1)  # (B, h, w)
    count = int(differ.sum())
    if not count or count > 1 + differ.numel() // 100:
        return count, 0
    own, wanted = (
        codes.reshape(len(ours), -1, *ours.shape[-2:]).permute(0, 2, 3, 1)[differ] for codes in (ours, theirs)
    )  # (n, q)
    rows = flatten_grid(features)[differ.flatten()]  # (n, C)
    size = rows.square().mean(1, keepdim=True).sqrt()
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return tie * torch.randn(like.shape, generator=generator)

    ties = _equally_near(bottleneck, rows, (own, wanted), tie)
    moved = copy.deepcopy(bottleneck)
    for _ in range(TRIES):
        for place, value in zip(moved.state_dict().values(), bottleneck.state_dict().values(), strict=True):
            if place.is_floating_point():
                place.copy_(value * (1 + noise(value)))
        codes = moved.encode((rows + size * noise(rows))[:, :, None, None])
        ties |= (codes.view(count, -1) == wanted).all(1)
    return count - int(ties.sum()), int(ties.sum())


def _equally_near(bottleneck: DiscreteBottleneck, rows: Tensor, pair: tuple[Tensor, Tensor], tie: float) -> Tensor:
    """Of features (n, C) and two codes (n, q) of each whether |f - a|^2 and |f - b|^2 are the same but for rounding."""
    axes = bottleneck.grid_shape(1, 1)
    first, second = (bottleneck.decode(codes.view(len(rows), *axes)).double().flatten(1) for codes in pair)
    if first.shape != rows.shape:
        return torch.zeros(len(rows), dtype=torch.bool)
    rows = rows.double()
    gap = (rows * (first - second)).sum(1) - (first.square() - second.square()).sum(1) / 2
    return gap.abs() <= tie * rows.norm(dim=1) * torch.maximum(first.norm(dim=1), second.norm(dim=1))


def _compared(model: Autoencoder, folder: Path) -> dict[str, Any]:
    """The differences on pictures of two sizes and numbers.

    Raises:
        SmaltiError: they are more than rounding.
    """
    encoder = Graph(folder / ENCODER)
    decoder = Graph(folder / DECODER) if model.networks.has_decoder else None
    found = Differences(0, 0, 0, 0.0)
    for batch, size in zip((3, 1), _sizes(model), strict=True):
        found += differences(model, encoder, decoder, _examples(model, batch, size))
    if found.faults or not found.largest <= LARGEST_DIFFERENCE:
        text = f"{found.faults} of {found.codes} codes differ, and values by up to {found.largest:.2g}"
        raise SmaltiError(f"onnxruntime gives another result than the model ({text}): nothing is written")
    return {"codes_compared": found.codes, "ties": found.ties, "largest_difference": found.largest}


def _sizes(model: Autoencoder) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two sizes of images that go through the networks as they are; one twice, where there is only one."""
    if model.networks.fixed_size is not None:
        return model.networks.fixed_size, model.networks.fixed_size
    height, width = (max(3, side) * model.stride for side in model.grid)
    return (height, width + model.stride), (height + model.stride, width)


def _examples(model: Autoencoder, batch: int, size: tuple[int, int]) -> Tensor:
    """Bundled pictures of a size; noise where the model takes neither grey nor colour."""
    channels = model.config.preprocessing.channels
    if channels in (1, 3):
        return F.interpolate(pictures(channels)[:batch], size, mode="bilinear", antialias=True).clamp(0, 1)
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(0))
