"""The bottleneck of a VQ-VAE."""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError, shown
from smalti.models.bottlenecks.base import BottleneckOutput, DeterministicQuantizer, DiscreteBottleneck
from smalti.models.bottlenecks.codebook import Codebook, Learning
from smalti.models.bottlenecks.estimators import NEAREST, straight_through
from smalti.models.bottlenecks.grids import flatten_grid, unflatten_grid
from smalti.ops.nearest import nearest_code
from smalti.ranges import CodebookSize, Share, Size

Compare = Literal["distance", "direction", "product"]


def codebook_loss(features: Tensor, quantized: Tensor) -> Tensor:
    """Mean over B, h, w, D of |sg[features] - code|^2; gradient reaches only the codebook (1711.00937, eq. 3)."""
    return F.mse_loss(quantized, features.detach())


def commitment_loss(features: Tensor, quantized: Tensor) -> Tensor:
    """Mean over B, h, w, D of |features - sg[code]|^2; gradient reaches only the encoder (1711.00937, eq. 3)."""
    return F.mse_loss(features, quantized.detach())


class VectorQuantizer(DeterministicQuantizer):
    """Nearest-neighbour codebook: the bottleneck of a VQ-VAE [1].

    Replaces every feature vector by the nearest of K code vectors and copies the decoder's gradient straight to the
    encoder. Of a feature vector f the code vector c is, by `compare`:

        "distance"   that of the least |f - c| [1, eq. 1-2]
        "direction"  that of the least |f / |f| - c / |c||; both count and decode as of length 1 [2]
        "product"    that of the largest <f, c> [3]

    Whatever chose it, the losses are distances from it. By "product" long vectors win: one inside the convex hull of
    the others is never chosen. K-means and restarts know nothing of that, so that codes they place there stay unused;
    it is for code vectors that somebody has trained.

    Shapes:
        features  (B, D, h, w)  any range; computed in float32
        latents   (B, D, h, w)  d latents / d features = identity for "straight_through"; in eval mode they are code
                                vectors and that is the gradient of every estimator
        codes     (B, h, w)     int64 in [0, K)

    Loss terms, unweighted:
        commitment  see `commitment_loss`
        codebook    see `codebook_loss`; there is none when the codebook is learnt by moving averages
        kl          (B,) nats per image, h*w*ln K: constant, since q is one-hot and p uniform

    Args:
        codebook_size: K, at least 2.
        code_dim: D; 8 to 16 keeps usage high.
        learning, decay, restart_below, start: see `Codebook`.
        estimator: how the gradient passes: "straight_through" [1], "rotation", "nsvq" or "diveq", see
            `smalti.models.bottlenecks.estimators`.
        compare: what makes a code vector the nearest, see above.

    Differs from [1]: the codebook starts from k-means on the first batch, dead codes restart, moving averages are the
    default, and ties go to the lowest index.

    References:
        [1] van den Oord, Vinyals, Kavukcuoglu. Neural Discrete Representation Learning. 2017. arXiv:1711.00937
        [2] Yu et al. Vector-quantized Image Modeling with Improved VQGAN. 2021. arXiv:2110.04627
        [3] Shi et al. Scalable Image Tokenization with Index Backpropagation Quantization. 2024. arXiv:2412.02692

    Example:
        >>> VectorQuantizer(codebook_size=512, code_dim=16)(torch.randn(2, 16, 8, 8)).codes.shape
        torch.Size([2, 8, 8])
    """

    how_gradients_pass = "the nearest code vector is piecewise constant; the decoder's gradient is copied past it"
    in_words = DiscreteBottleneck.in_words._replace(
        latents="the nearest of K code vectors",
        loss="distortion + commitment, which keeps features near their code vectors; these follow by moving averages"
        " or by a codebook loss",
        gradient_stop="at the nearest code vector: its number, an arg min, carries no gradient",
    )

    def __init__(
        self,
        *,
        codebook_size: CodebookSize,
        code_dim: Size,
        learning: Learning = "ema",
        estimator: str = "straight_through",
        decay: Share = 0.99,
        restart_below: Share = 0.1,
        compare: Compare = "distance",
        start: Literal["kmeans", "random"] = "kmeans",
    ):
        super().__init__()
        if estimator not in NEAREST:
            raise SmaltiError(f"estimator must be one of {', '.join(NEAREST)}, not {shown(estimator)}")
        if compare not in get_args(Compare):
            raise SmaltiError(f"compare must be one of {', '.join(get_args(Compare))}, not {shown(compare)}")
        self.codebook_size, self.estimator, self.compare = codebook_size, estimator, compare
        self.in_channels = self.out_channels = code_dim
        self.codebook = Codebook(
            codebook_size, code_dim, learning=learning, decay=decay, restart_below=restart_below, start=start
        )

    def _vectors(self) -> Tensor:
        """The code vectors as they are compared and decoded, (K, D)."""
        return self._scaled(self.codebook.vectors)

    def _scaled(self, vectors: Tensor) -> Tensor:
        """Features or code vectors, along axis 1, as they are compared."""
        return F.normalize(vectors, dim=1) if self.compare == "direction" else vectors

    def _nearest(self, flat: Tensor, vectors: Tensor) -> Tensor:
        """The codes (N,) of scaled features (N, D)."""
        bias = vectors.new_zeros(len(vectors)) if self.compare == "product" else None
        return nearest_code(flat, vectors, bias)

    def _forward(self, features: Tensor) -> BottleneckOutput:
        features = self._scaled(features)
        flat, learns = flatten_grid(features.detach()), self.training and self.codebook.learns
        if learns:
            self.codebook.prepare(flat)
        vectors = self._vectors()
        codes = self._nearest(flat, vectors)
        if learns:
            self.codebook.observe(flat, codes)
        flat_quantized = F.embedding(codes, vectors)
        quantized = unflatten_grid(flat_quantized, features)
        penalties = {"commitment": commitment_loss(features, quantized)}
        if self.codebook.learning != "ema":
            penalties["codebook"] = codebook_loss(features, quantized)
        if self.training:
            latents = unflatten_grid(NEAREST[self.estimator](flatten_grid(features), flat_quantized), features)
        else:
            latents = straight_through(quantized, features)
        return BottleneckOutput(latents, codes.view(features[:, 0].shape), self.uniform_kl(features), penalties)

    def _encode(self, features: Tensor) -> Tensor:
        features = self._scaled(features)
        return self._nearest(flatten_grid(features), self._vectors()).view(features[:, 0].shape)

    def _decode(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self._vectors()).permute(0, 3, 1, 2)

    def load_vectors(self, vectors: Tensor) -> None:
        """Put code vectors (K, D) of one's own in; see `Codebook.load_vectors`."""
        self.codebook.load_vectors(vectors)

    def update(self) -> dict[str, Tensor]:
        """Move the codebook; see `Codebook.update`."""
        return self.codebook.update()
