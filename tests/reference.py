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


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Heusel et al., eq. 6, by symmetric square roots: tr (S1 S2)^1/2 = tr (S1^1/2 S2 S1^1/2)^1/2."""
    means = [features.mean(0) for features in (first, second)]
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    product = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    difference = means[0] - means[1]
    return float(difference @ difference + sum(np.trace(part) for part in covariances) - 2 * product)


def kernel_distance(first: np.ndarray, second: np.ndarray, paired: bool) -> float:
    """The unbiased squared maximum mean discrepancy with (f f' / D + 1)^3, by loops."""

    def mean(ours, others, without_self):
        values = [
            (float(a @ b) / len(a) + 1) ** 3
            for i, a in enumerate(ours)
            for j, b in enumerate(others)
            if not (without_self and i == j)
        ]
        return sum(values) / len(values)

    return mean(first, first, True) + mean(second, second, True) - 2 * mean(first, second, paired)


def second_over_first_differences(image: np.ndarray) -> float:
    """Period-2 energy of one image (C, H, W), by loops over rows and columns."""
    second, first = [], []
    for lines in (image, image.transpose(0, 2, 1)):
        second.append(np.mean([(line[:-2] - 2 * line[1:-1] + line[2:]) ** 2 for channel in lines for line in channel]))
        first.append(np.mean([(line[:-1] - line[1:]) ** 2 for channel in lines for line in channel]))
    return float(sum(second) / sum(first))


def jumps_at_borders(image: np.ndarray, stride: int) -> float:
    """Border ratio of one image (C, H, W), by loops."""
    across, everywhere = [], []
    for lines in (image, image.transpose(0, 2, 1)):
        jumps = {i: np.mean((lines[..., i + 1] - lines[..., i]) ** 2) for i in range(lines.shape[-1] - 1)}
        everywhere.append(np.mean(list(jumps.values())))
        across.append(np.mean([jump for i, jump in jumps.items() if (i + 1) % stride == 0]))
    return float(sum(across) / sum(everywhere))


def nearest_labels(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """The commonest label among the k nearest rows of `train` for each row of `test`; the first in order of equals."""
    distances = ((test[:, None] - train[None]) ** 2).sum(2)
    votes = labels[np.argsort(distances, axis=1)[:, :k]]
    names = np.unique(labels)
    return names[np.argmax([[(row == name).sum() for name in names] for row in votes], axis=1)]
