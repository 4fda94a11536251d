"""The bottleneck of the dVAE, with a choice of gradient estimators."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.configs import from_dict
from smalti.errors import SmaltiError, shown
from smalti.models.bottlenecks.base import BottleneckOutput, CategoricalPosterior, PosteriorSample
from smalti.models.bottlenecks.codebook import Codebook
from smalti.models.bottlenecks.estimators import CATEGORICAL, straight_through
from smalti.models.bottlenecks.grids import Kept, flatten_grid, unflatten_grid
from smalti.ops import randomness
from smalti.ops.gumbel import gumbel_latents
from smalti.ops.gumbel_noise import at_row, standard_gumbel
from smalti.ops.nearest import nearest_code
from smalti.ranges import CodebookSize, Positive, Range, Share, Size
from smalti.schedules import Schedule

FUSED = {"gumbel_softmax": False, "gumbel_straight_through": True}  # those that are one operation: whether it is hard


class Categorical(CategoricalPosterior):
    """Categorical posterior over K codes: with Gumbel-Softmax [1, 2] in training, the bottleneck of a dVAE [3].

    In training mode the latents are weights @ codebook, where the weights (one number a code) come from the estimator;
    with "gumbel_softmax" they are softmax((logits + Gumbel noise) / temperature), used as they are in the forward and
    the backward pass, as DALL-E's authors do. The others sample a code and differ in the backward pass, see
    `smalti.models.bottlenecks.estimators`. In eval mode the code is the arg max of the logits, without noise, and the
    latents have the gradient of softmax(logits) @ codebook in the features, whatever the estimator.

    Shapes:
        features  (B, in_channels, h, w)  computed in float32
        latents   (B, D, h, w)
        codes     (B, h, w)               int64 in [0, K); in training mode too the arg max of the logits
        kl        (B,)                    nats per image, sum over h, w of KL(q || p) with q = softmax(logits): the
                                          plain categorical at every temperature, as in [3]; gradient reaches the logits

    Args:
        codebook_size: K, at least 2.
        code_dim: D; 0 makes the latents one-hot, D = K, with nothing to learn.
        logits: "distance": -exp(log_scale) |feature - code|^2, so that in_channels is D, the codebook starts from
            k-means on the first batch and dead codes restart; "convolution": a 1x1 convolution, as in [3]; "features":
            the features are the logits, in_channels = K.
        in_channels: channels of the features; only for "convolution".
        estimator: "gumbel_softmax", "gumbel_straight_through", "straight_through", "gumbel_rao", "reinmax" or
            "reinforce".
        temperature: of the relaxation, a schedule; until `anneal` is called it is the first of it.
        sharpness: for "distance", the first value of exp(log_scale) times the mean squared distance to the nearest
            code: the margin in nats by which a feature prefers its code at the start. The distance is at least that
            between features: of a codebook that has a code for each feature of the first batch it would be 0.
        prior_grid: (h, w): p has a learned distribution for each position of this grid; by default p is uniform.
        decay: of the moving average of the codes' shares.
        restart_below: see `Codebook`; only for "distance".

    Differs from [3]: distance logits, k-means and restart are the defaults; `logits="convolution"` is theirs.

    References:
        [1] Jang, Gu, Poole. Categorical Reparameterization with Gumbel-Softmax. 2016. arXiv:1611.01144
        [2] Maddison, Mnih, Teh. The Concrete Distribution. 2016. arXiv:1611.00712
        [3] Ramesh et al. Zero-Shot Text-to-Image Generation. 2021. arXiv:2102.12092, section 2.1 and appendix A.2

    Example:
        >>> Categorical(codebook_size=512, code_dim=16).eval()(torch.randn(2, 16, 8, 8)).codes.shape
        torch.Size([2, 8, 8])
    """

    how_gradients_pass = "sampling a code is not differentiable; an estimator takes its place"
    in_words = CategoricalPosterior.in_words._replace(
        features="at each position what the K logits of a distribution over codes are made of",
        latents="in training a relaxed or a sampled code, by the estimator; in use the vector of the likeliest code",
        loss="distortion + KL(q(code given x), p(code)), as in an ELBO",
        purpose="images as few whole numbers, from a distribution over codes: the first stage of DALL-E",
        gradient_stop="at the sampling of a code, and at the arg max: whole numbers carry no gradient",
    )
    temperature: Tensor
    identity: Tensor

    def __init__(
        self,
        *,
        codebook_size: CodebookSize,
        code_dim: Annotated[int, Range(0, 1 << 20)],
        logits: Literal["distance", "convolution", "features"] = "distance",
        in_channels: Size | None = None,
        estimator: str = "gumbel_softmax",
        temperature: Schedule | Mapping[str, Any] | None = None,
        sharpness: Positive = 2.0,
        prior_grid: tuple[Size, Size] | None = None,
        decay: Share = 0.99,
        restart_below: Share = 0.1,
    ):
        super().__init__()
        if codebook_size < 2:
            raise SmaltiError(f"codebook_size must be at least 2, not {codebook_size}")
        if estimator not in CATEGORICAL:
            raise SmaltiError(f"estimator must be one of {', '.join(CATEGORICAL)}, not {shown(estimator)}")
        self.codebook_size, self.out_channels = codebook_size, code_dim or codebook_size
        self.in_channels = _in_channels(logits, codebook_size, code_dim, in_channels)
        self.by_distance, self.sharpness, self.estimator = logits == "distance", sharpness, estimator
        self.relaxes = estimator == "gumbel_softmax"
        if isinstance(temperature, Mapping):
            temperature = from_dict(Schedule, temperature, "bottleneck.temperature")
        self.schedule = temperature or Schedule(end=1.0)
        first = self.schedule(0, 1)
        for way, value in (("begins", first), ("ends", self.schedule.end)):
            if not value > 0:
                raise SmaltiError(f"the temperature must stay positive; it {way} at {value}")
        self.register_buffer("temperature", torch.tensor(first, dtype=torch.float32), persistent=True)
        self._annealed: float | None = None  # the same number without asking a device
        self.register_load_state_dict_post_hook(_ask_again)
        self.codebook = None
        if code_dim:
            below = restart_below if self.by_distance else 0.0
            self.codebook = Codebook(codebook_size, code_dim, learning="gradient", decay=decay, restart_below=below)
        else:
            self._register_constants()
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float32)) if self.by_distance else None
        self.to_logits = (
            nn.Conv2d(self.in_channels, codebook_size, 1, dtype=torch.float32) if logits == "convolution" else None
        )
        self.prior_logits = (
            nn.Parameter(torch.zeros(*prior_grid, codebook_size, dtype=torch.float32)) if prior_grid else None
        )

    def _constants(self) -> dict[str, Tensor]:
        return {} if self.codebook is not None else {"identity": torch.eye(self.codebook_size, dtype=torch.float32)}

    @property
    def vectors(self) -> Tensor:
        """What each code stands for in the latents, (K, D)."""
        return self.identity if self.codebook is None else self.codebook.vectors

    def anneal(self, step: int, steps: int) -> dict[str, float]:
        """Set the temperature for optimiser step `step` of `steps`."""
        temperature = self.schedule(step, steps)
        self.set_temperature(temperature)
        return {"temperature": temperature}

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of the relaxation."""
        self._annealed = temperature
        self.temperature.fill_(temperature)

    def load_vectors(self, vectors: Tensor) -> None:
        """Put code vectors (K, D) of one's own in; see `Codebook.load_vectors`.

        Raises:
            SmaltiError: another shape, no finite numbers, or one-hot latents.
        """
        if self.codebook is None:
            raise SmaltiError("one-hot latents (code_dim 0) have no code vectors to load")
        self.codebook.load_vectors(vectors)

    def update(self) -> dict[str, Tensor]:
        """Restart dead codes; see `Codebook.update`."""
        return {} if self.codebook is None else self.codebook.update()

    def logits(self, features: Tensor) -> Tensor:
        """Unnormalised log q(code | x), (N, K)."""
        if self.log_scale is not None:
            flat, vectors, scale = flatten_grid(features), self.vectors, self.log_scale.exp()
            # |f - c|^2 without |f|^2, which is the same for all codes and so without effect on the softmax;
            # scaled before the product: N x K numbers less to pass over, forwards and twice backwards
            return torch.addmm(-scale * vectors.square().sum(1), scale * flat, vectors.T, alpha=2)
        return flatten_grid(features if self.to_logits is None else self.to_logits(features))

    def _log_prior(self, batch: int, height: int, width: int) -> Tensor | float:
        """ln p(code), (N, K), or its one value when p is uniform."""
        if self.prior_logits is None:
            return -math.log(self.codebook_size)
        if self.prior_logits.shape[:2] != (height, width):
            grid = "x".join(map(str, self.prior_logits.shape[:2]))
            raise SmaltiError(f"the learned prior is for a {grid} grid, not {height}x{width}; use images of that size")
        return self.prior_logits.log_softmax(2).flatten(0, 1).repeat(batch, 1)

    @torch.no_grad()
    def _prepare(self, codebook: Codebook, features: Tensor) -> None:
        """Before a forward pass to learn from; see `Codebook.prepare`."""
        if self.log_scale is None:
            return
        rows = codebook.prepare(flatten_grid(features))
        if rows is not None:
            error = torch.maximum(rows.error(self.vectors), rows.apart())
            self.log_scale.copy_((self.sharpness / error.clamp(min=1e-12)).log())

    def _forward(self, features: Tensor) -> BottleneckOutput:
        batch, _, height, width = features.shape
        return self._quantized(features, self._log_prior(batch, height, width))

    def _forward_kept(self, features: Tensor, kept: Kept) -> BottleneckOutput:
        """p(code) may depend on the position."""
        log_prior = self._log_prior(*kept.mask.shape)
        return self._quantized(features, log_prior[kept.places] if isinstance(log_prior, Tensor) else log_prior)

    def _quantized(self, features: Tensor, log_prior: Tensor | float) -> BottleneckOutput:
        batch, _, height, width = features.shape
        learning = self.codebook if self.training and self.codebook is not None and self.codebook.learns else None
        if learning is not None:
            self._prepare(learning, features)
        logits, log_prob = self.logits(features), None
        if self.training and self.prior_logits is None and self.estimator in FUSED:
            hard, seed = FUSED[self.estimator], at_row(randomness.seed(), randomness.first_row(len(logits)))
            temperature = self.temperature.item() if self._annealed is None else self._annealed
            latents, kl, codes = gumbel_latents(logits, self.vectors, temperature, hard=hard, seed=seed)
        else:
            log_q = logits.log_softmax(1)
            kl = (log_q.exp() * (log_q - log_prior)).sum(1)
            if self.training:
                codes = logits.detach().argmax(1)
                weights = CATEGORICAL[self.estimator](logits, self.temperature)
                latents = weights @ self.vectors
                if self.estimator == "reinforce":
                    log_prob = (weights * log_q).view(batch, height * width * self.codebook_size).sum(1)
            else:
                codes = self._encode(features).flatten()
                latents = F.embedding(codes, self.vectors)
                if features.requires_grad:
                    latents = straight_through(latents, logits.softmax(1) @ self.vectors)
        if learning is not None:
            learning.observe(flatten_grid(features.detach()), codes)
        latents, codes = unflatten_grid(latents, features), codes.view(batch, height, width)
        kl = kl.view(batch, height * width).sum(1)
        return BottleneckOutput(latents, codes, kl, penalties={}, log_prob=log_prob)

    def _sample_posterior(self, features: Tensor, temperature: float) -> PosteriorSample:
        batch, _, height, width = features.shape
        logits = self.logits(features)
        codes = (logits + temperature * standard_gumbel(logits)).argmax(1)
        log_ratio = (self._log_prior(batch, height, width) - logits.log_softmax(1)).gather(1, codes[:, None])
        codes = codes.view(batch, height, width)
        return PosteriorSample(self._decode(codes), log_ratio.view(batch, height * width).sum(1), codes)

    def _sample_codes(self, num: int, h: int, w: int, temperature: float) -> Tensor:
        if self.prior_logits is None:
            return super()._sample_codes(num, h, w, temperature)
        log_prior = torch.as_tensor(self._log_prior(num, h, w))
        return (log_prior + temperature * standard_gumbel(log_prior)).argmax(1).view(num, h, w)

    def _encode(self, features: Tensor) -> Tensor:
        """The arg max of the logits, which are not written where they are products."""
        flat = flatten_grid(features)
        if self.log_scale is not None:
            codes = nearest_code(flat, self.vectors)
        elif self.to_logits is not None:
            codes = nearest_code(flat, self.to_logits.weight.flatten(1), self.to_logits.bias)
        else:
            codes = flat.argmax(1)
        return codes.view(features[:, 0].shape)

    def _decode(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.vectors).permute(0, 3, 1, 2)


def _ask_again(bottleneck: nn.Module, _: object) -> None:
    assert isinstance(bottleneck, Categorical)
    bottleneck._annealed = None


def _in_channels(logits: str, codebook_size: int, code_dim: int, in_channels: int | None) -> int:
    """Channels of the features that these logits need."""
    if logits == "convolution":
        return in_channels or code_dim or codebook_size
    if logits not in ("distance", "features"):
        raise SmaltiError(f"logits must be 'distance', 'convolution' or 'features', not {logits!r}")
    if logits == "distance" and not code_dim:
        raise SmaltiError("distance logits need a code_dim; one-hot latents (code_dim 0) take logits 'features'")
    needed, what = (code_dim, "code_dim") if logits == "distance" else (codebook_size, "codebook_size")
    if in_channels not in (None, needed):
        raise SmaltiError(f"{logits} logits need in_channels = {what} = {needed}, not {in_channels}")
    return needed
