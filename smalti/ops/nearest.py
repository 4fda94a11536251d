"""Nearest code vector: the operation that every vector-quantising bottleneck shares."""

import math

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.ops.native import kernels_for

CHUNK_ELEMENTS = 1 << 22  # at most this many scores exist at a time (16 MB), whatever N and K are


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
    call. An operator of its own, so that `torch.compile` keeps it whole; an exported graph has its plain form, which
    needs nothing of smalti, and holds all N x K scores.

    A score that is not a number counts as -infinity, and where no score is above that the code is 0. (Where products or
    sums go beyond float32, their order decides what is not a number.)

    Raises:
        SmaltiError: other shapes, or D or K of 0.
    """
    features, codebook = features.detach(), codebook.detach()
    bias = codebook.square().sum(1) / -2 if bias is None else bias.detach()
    if torch.compiler.is_exporting():
        return _highest(torch.addmm(bias, features, codebook.T))
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


def _highest(scores: Tensor) -> Tensor:
    """The column of the highest score of each row, of equal ones the first; what is not a number is none."""
    return scores.masked_fill(scores.isnan(), -math.inf).argmax(1)
