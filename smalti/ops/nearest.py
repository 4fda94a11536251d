"""Nearest code vector: the operation that every vector-quantising bottleneck shares."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.ops.native import kernels_for

CHUNK_ELEMENTS = 1 << 22  # at most this many scores exist at a time (16 MB), whatever N and K are
GRAPH_ELEMENTS, GRAPH_ROWS = 1 << 18, 1 << 10  # of a graph: scores at a time (1 MB, for a cache), at most so many rows
GROUP = 128  # codes of which a graph looks for the highest score first, and then for its place


def nearest_code(features: Tensor, codebook: Tensor, bias: Tensor | None = None) -> Tensor:
    """The index k that maximises f.c_k + b_k, for each of N features; ties go to the lowest index.

    With the default bias -|c_k|^2 / 2 that is the nearest code vector in Euclidean distance.

    Shapes:
        features  (N, D)  float32
        codebook  (K, D)  float32
        bias      (K,)    float32, optional
        result    (N,)    int64 in [0, K)

    Memory is O(N + K): the native kernel writes no score, plain PyTorch a chunk at a time; the N x K matrix never
    exists. Where the processor has VNNI, products of bytes find the few candidates of each feature, and float32 decides
    between them: the codes stay the same. A feature's code does not depend on the other features of the native kernel's
    call. An operator of its own, so that `torch.compile` keeps it whole; an exported graph has a form that needs
    nothing of smalti, see `nearest_code_of_graphs`.

    A score that is not a number counts as -infinity, and where no score is above that the code is 0. (Where products or
    sums go beyond float32, their order decides what is not a number.)

    Raises:
        SmaltiError: other shapes, or D or K of 0.
    """
    features, codebook = features.detach(), codebook.detach()
    bias = codebook.square().sum(1) / -2 if bias is None else bias.detach()
    if torch.compiler.is_exporting():
        return nearest_code_of_graphs(features, codebook, bias)
    return torch.ops.smalti.nearest_code(features, codebook, bias)


@torch.library.custom_op("smalti::nearest_code", mutates_args=())
def _nearest_code(features: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    (size, dim), most = codebook.shape if codebook.ndim == 2 else (0, 0), 1 << 31
    if not (0 < size < most and dim and features.shape[1:] == (dim,) and bias.shape == (size,)):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (features, codebook, bias))
        raise SmaltiError(f"features, codebook and bias must be (N, D), (K, D) and (K,), D and K above 0, not {shapes}")
    native = kernels_for(features, codebook, bias)
    if native is None:
        return nearest_code_reference(features, codebook, bias)
    codes = torch.empty(len(features), dtype=torch.int64)
    native.nearest(features.contiguous(), codebook.contiguous(), bias.contiguous(), codes, 1)
    return codes


@_nearest_code.register_fake
def _(features: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    return features.new_empty(len(features), dtype=torch.int64)


def nearest_code_reference(features: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    """`nearest_code` in plain PyTorch, on any device."""
    if not len(features):
        return features.new_zeros(0, dtype=torch.int64)
    rows = max(1, CHUNK_ELEMENTS // len(codebook))
    return torch.cat([_highest(torch.addmm(bias, chunk, codebook.T)) for chunk in features.split(rows)])


def nearest_code_of_graphs(features: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    """`nearest_code` in a loop of operations that PyTorch, ONNX and its runtimes have, for any number of features.

    The scores of a few features exist at a time, so that they stay in a processor's cache: all N x K of them at once
    would be written to memory and read again, which takes a runtime most of its time. Whether scores are numbers is
    decided before there are any: a feature that is not finite has the code 0, a code vector that is not is nobody's.
    """
    from torch._higher_order_ops.scan import scan

    # Indices and not slices, and rows before chunks: what PyTorch can follow for every number of features
    number, (size, dim) = features.shape[0], codebook.shape
    group = min(size, GROUP)
    usable = codebook.isfinite().all(1) & ~bias.isnan()
    table = F.pad(torch.where(usable[:, None], codebook, 0.0), (0, 0, 0, -size % group)).T
    bias = F.pad(torch.where(usable, bias, -math.inf), (0, -size % group), value=-math.inf)
    rows = max(1, min(GRAPH_ROWS, GRAPH_ELEMENTS // size))
    chunks = number // rows + 2  # which is never 1: of one alone PyTorch would make a graph of its own
    finite = features.isfinite().all(1)
    filled = F.pad(torch.where(finite[:, None], features, 0.0), (0, 0, 0, 1))
    padded = filled[torch.arange(chunks * rows, device=features.device).clamp(max=number)]

    def codes_of(carried: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        return carried.clone(), _highest_by_groups(torch.addmm(bias, chunk, table), group)

    apart = padded.view(rows, -1, dim).transpose(0, 1)  # (chunks, rows, D)
    _, codes = scan(codes_of, features.new_zeros(1), apart)
    return torch.where(finite, codes.T.reshape(-1)[torch.arange(number, device=features.device)], 0)


def _highest_by_groups(scores: Tensor, group: int) -> Tensor:
    """The column of the highest score of each row, of equal ones the first: of its group first, which is quick."""
    groups = scores.unflatten(1, (-1, group))
    best = groups.amax(2).argmax(1, keepdim=True)
    own = groups.gather(1, best[:, :, None].expand(-1, -1, group))[:, 0]
    return best[:, 0] * group + own.argmax(1)


def _highest(scores: Tensor) -> Tensor:
    """The column of the highest score of each row, of equal ones the first; what is not a number is none."""
    return scores.masked_fill(scores.isnan(), -math.inf).argmax(1)
