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


def chosen_code(features: np.ndarray, codebook: np.ndarray, compare: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N,), and by how much each wins, in float64: arg min of a squared distance, or arg max of a product."""
    codes, margins, codebook = [], [], codebook.astype(np.float64)
    if compare == "direction":
        codebook = codebook / np.linalg.norm(codebook, axis=1, keepdims=True)
    for start in range(0, len(features), 1000):
        part = features[start : start + 1000].astype(np.float64)
        if compare == "direction":
            part = part / np.linalg.norm(part, axis=1, keepdims=True)
        if compare == "product":
            costs = -(part @ codebook.T)
        else:
            costs = np.stack([((part - code) ** 2).sum(1) for code in codebook], axis=1)
        codes.append(costs.argmin(1))
        least, second = np.partition(costs, 1, axis=1)[:, :2].T
        margins.append(second - least)
    return np.concatenate(codes), np.concatenate(margins)


def residual_codes(features: np.ndarray, codebooks: np.ndarray, compare: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, q) by q codebooks (q, K, D), each of what those before left over, and the least margin of the q."""
    codes, margins, left = [], [], features.astype(np.float64)
    for codebook in codebooks.astype(np.float64):
        chosen, margin = chosen_code(left, codebook, compare)
        if compare == "direction":
            codebook = codebook / np.linalg.norm(codebook, axis=1, keepdims=True)
        left = left - codebook[chosen]
        codes.append(chosen)
        margins.append(margin)
    return np.stack(codes, axis=1), np.min(margins, axis=0)


def product_codes(features: np.ndarray, codebooks: np.ndarray, compare: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, q) by q codebooks (q, K, D / q), each of its part of the D channels, and the least margin of the q."""
    parts = np.split(features, len(codebooks), axis=1)
    each = [chosen_code(part, codebook, compare) for part, codebook in zip(parts, codebooks, strict=True)]
    return np.stack([codes for codes, _ in each], axis=1), np.min([margin for _, margin in each], axis=0)


def sign_codes(features: np.ndarray) -> np.ndarray:
    """Codes (N,) of features (N, bits): channel i is bit i, 1 above 0."""
    codes = np.zeros(len(features), dtype=np.int64)
    for channel in reversed(range(features.shape[1])):
        codes = 2 * codes + (features[:, channel] > 0)
    return codes


def fsq(features: np.ndarray, levels: tuple[int, ...], variant: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is rounded (N, D), the values (N, D) and the codes (N,), in the features' type: arXiv:2309.15505, A.1."""
    kind = features.dtype.type
    eps, rounded, values, codes, basis = kind(1e-3), [], [], np.zeros(len(features), dtype=np.int64), 1
    for z, count in zip(features.T, levels, strict=True):
        size, half_width = kind(count), kind(count // 2)
        offset = kind(0.5 if count % 2 == 0 else 0)
        if variant == "listing":
            half_l = (size - 1) * (1 - eps) / 2
            shift = np.tan(offset / half_l)
        elif variant == "paper":
            half_l = (size - 1) * (1 + eps) / 2
            shift = np.arctanh(offset / half_l)
        else:
            half_l, shift = (size - 1) / 2, kind(0)
        bounded = np.tanh(z + shift) * half_l - offset
        whole = np.round(bounded)
        if variant == "symmetric":
            value = (whole + offset) / half_l
            digit = (value + 1) * half_l
        else:
            value = whole / half_width
            digit = value * half_width + half_width
        rounded.append(bounded)
        values.append(value)
        codes += np.round(digit).astype(np.int64) * basis
        basis *= count
    return np.stack(rounded, axis=1), np.stack(values, axis=1), codes


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
