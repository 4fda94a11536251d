"""Nearest code vector: the operation that every vector-quantising bottleneck shares."""

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22  # at most this many scores exist at a time (16 MB), whatever N and K are


def nearest_code(features: Tensor, codebook: Tensor, bias: Tensor | None = None) -> Tensor:
    """The index k that maximises f.c_k + b_k, for each of N features; ties go to the lowest index.

    With the default bias -|c_k|^2 / 2 that is the nearest code vector in Euclidean distance.

    Shapes:
        features  (N, D)  float32
        codebook  (K, D)  float32
        bias      (K,)    float32, optional
        result    (N,)    int64 in [0, K)

    Memory is O(N + K) plus one chunk of scores; the N x K distance matrix never exists.
    """
    if bias is None:
        bias = codebook.square().sum(1) / -2
    rows = max(1, CHUNK_ELEMENTS // len(codebook))
    scores = (torch.addmm(bias, chunk, codebook.T) for chunk in features.split(rows))
    return (
        torch.cat([chunk.argmax(1) for chunk in scores]) if len(features) else features.new_zeros(0, dtype=torch.int64)
    )
