"""Slow, independent references in numpy: loops instead of vectorised code."""

import math

import numpy as np


def nearest_code(features: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the nearest code vector by Euclidean distance in float64, lowest index first."""
    result = []
    for feature in features.astype(np.float64):
        distances = [float(((feature - code) ** 2).sum()) for code in codebook.astype(np.float64)]
        result.append(int(np.argmin(distances)))
    return np.array(result)


def ema_step(share, sums, vectors, codes, decay):
    """One update of the moving averages; share and sums are fractions of the vectors seen."""
    share, sums = share.copy(), sums.copy()
    count = len(codes)
    for k in range(len(share)):
        mine = [vector for vector, code in zip(vectors, codes, strict=True) if code == k]
        share[k] = decay * share[k] + (1 - decay) * len(mine) / count
        sums[k] = decay * sums[k] + (1 - decay) * sum(mine, np.zeros_like(sums[k])) / count
    return share, sums, sums / share[:, None]


def gaussian_kl(mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """KL of diagonal Gaussians to N(0, I), nats per image."""
    result = []
    for m, lv in zip(mean.reshape(len(mean), -1), log_variance.reshape(len(mean), -1), strict=True):
        result.append(sum(0.5 * (math.exp(b) + a * a - 1 - b) for a, b in zip(m, lv, strict=True)))
    return np.array(result)


def categorical_kl_to_uniform(logits: np.ndarray) -> np.ndarray:
    """Sum over positions of KL(softmax(logits) || uniform), nats per image; logits (B, positions, K)."""
    result = []
    for image in logits.astype(np.float64):
        total = 0.0
        for row in image:
            q = np.exp(row - row.max())
            q /= q.sum()
            total += sum(p * math.log(p * len(row)) for p in q if p > 0)
        result.append(total)
    return np.array(result)


def perplexity(codes: np.ndarray) -> float:
    """exp of the entropy of the histogram of all codes."""
    _, counts = np.unique(codes, return_counts=True)
    p = counts / counts.sum()
    return math.exp(-sum(x * math.log(x) for x in p))


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Of one image in [0, 1]."""
    return 10 * math.log10(1 / float(((a.astype(np.float64) - b) ** 2).mean()))


def nearest_labels(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """The commonest label among the k nearest rows of `train` for each row of `test`; the first in order of equals."""
    distances = ((test[:, None] - train[None]) ** 2).sum(2)
    votes = labels[np.argsort(distances, axis=1)[:, :k]]
    names = np.unique(labels)
    return names[np.argmax([[(row == name).sum() for name in names] for row in votes], axis=1)]
