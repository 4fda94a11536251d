"""The one autoencoder: encoder, bottleneck, decoder, likelihood."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.images.pixels import crop_to, stacked
from smalti.images.preprocessing import size_text
from smalti.images.reading import Images, to_images
from smalti.models.bottlenecks import BOTTLENECKS, BottleneckOutput, DiscreteBottleneck
from smalti.models.bottlenecks.layer import freeze_layers
from smalti.models.config import AutoencoderConfig
from smalti.models.likelihoods import LIKELIHOODS
from smalti.models.networks import NETWORKS, in_own_type
from smalti.models.tiles import Tiles
from smalti.modes import evaluating, using
from smalti.pretrained import Pretrained
from smalti.shapes import check_shape

T = TypeVar("T")
PIXELS_AT_ONCE = 1 << 22  # in one batch of `map_by_size`
FIXED_BATCH_PIXELS = 1 << 14  # in one batch of a network: 16 images of 32x32, one of 128x128 or larger


class Encoded(NamedTuple):
    """The codes of one image and the size to crop its reconstruction to."""

    codes: Tensor  # (*grid) int64, on the CPU
    size: tuple[int, int]  # (H, W), pixels


class LatentSample(NamedTuple):
    """Latents at random, and the codes that they are of."""

    latents: Tensor  # (B, D, h, w)
    codes: Tensor | None  # (B, *grid) int64; None when continuous
    size: tuple[int, int]  # (H, W), pixels to crop the images to


class EncodedLatents(NamedTuple):
    """The latents of one image and the size to crop its reconstruction to."""

    latents: Tensor  # (D, h, w) float32, on the CPU
    size: tuple[int, int]  # (H, W), pixels


class AutoencoderOutput(NamedTuple):
    """One pass through the autoencoder."""

    parameters: Tensor  # (B, P, H, W): of the likelihood
    bottleneck: BottleneckOutput


class Autoencoder(Pretrained):
    """Images to latents and back; which system it is depends on the bottleneck alone.

    `forward` is for training. `encode`, `decode`, `reconstruct` are for using the model: deterministic in every mode,
    without gradients, for images of any size, and they take files, Pillow images, arrays or tensors: see `to_images`.
    An image has the same codes, latents and reconstruction, bit for bit, alone or among others. They leave the model's
    mode alone, so that it may be trained on another thread. Images of more than a million pixels go through the
    networks in tiles, see `smalti.models.tiles`. In `.half()`, `.bfloat16()` and `.double()` the networks compute in
    that type; the bottleneck and the likelihood stay in float32, and images go in and out as float32.

    Raises:
        SmaltiError: a part's kind or keyword is unknown.
    """

    config_class: ClassVar[type] = AutoencoderConfig
    what: ClassVar[str] = "autoencoder"

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        channels = config.preprocessing.channels
        self.networks = NETWORKS.build(config.networks)
        self.bottleneck = BOTTLENECKS.build(config.bottleneck)
        self.likelihood = LIKELIHOODS.build(config.likelihood, channels=channels)
        self.encoder = self.networks.encoder(channels, self.bottleneck.in_channels)
        self.decoder = self.networks.decoder(self.bottleneck.out_channels, self.likelihood.num_parameters)
        for network in (self.encoder, self.decoder):
            network.register_forward_pre_hook(in_own_type)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of every module; without gradients the averages of a codebook stand still too."""
        freeze_layers(self, not requires_grad)
        return super().requires_grad_(requires_grad)

    def no_weight_decay(self) -> set[str]:
        """The names of the parameters that weight decay must leave alone: those of code vectors."""
        return {f"bottleneck.{name}" for name in self.bottleneck.no_weight_decay()}

    @property
    def stride(self) -> int:
        """Pixels per grid position."""
        return self.networks.stride

    @property
    def tiles(self) -> Tiles:
        """How images of any size go through the networks."""
        return Tiles(self.networks)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the latents of an image of the size that the model was trained on."""
        return self.networks.grid_of(*self.config.preprocessing.size)

    @property
    def codes_bottleneck(self) -> DiscreteBottleneck:
        """The bottleneck, for what needs codes.

        Raises:
            SmaltiError: it is continuous.
        """
        if not isinstance(self.bottleneck, DiscreteBottleneck):
            remedy = f"its bottleneck is {self.config.bottleneck['kind']!r}; use a vqvae or a dvae, or reconstruct()"
            raise SmaltiError(f"this model has no codes: {remedy}")
        return self.bottleneck

    def forward(self, images: Tensor) -> AutoencoderOutput:
        """Map images (B, C, H, W) in [0, 1], H and W multiples of the stride, to the likelihood's parameters."""
        bottleneck = self.bottleneck(self.features(images))
        return AutoencoderOutput(parameters=self.decoder(bottleneck.latents), bottleneck=bottleneck)

    def features(self, images: Tensor) -> Tensor:
        """The encoder's output (B, in_channels, h, w) for images (B, C, H, W) of a size that the networks take."""
        check_shape(images, "B C H W", "images", C=self.config.preprocessing.channels)
        self.check_size(images.shape[2], images.shape[3])
        return self.encoder((images - self.networks.grey).contiguous(memory_format=torch.channels_last))

    def check_fits(self, height: int, width: int) -> None:
        """Raise a SmaltiError unless images of this size go through the networks when they are padded."""
        size = self.networks.fixed_size
        if size is not None and (height > size[0] or width > size[1]):
            self.check_size(height, width)  # as it is, not as it is padded

    def check_size(self, height: int, width: int) -> None:
        """Raise a SmaltiError unless images of this size go through the networks as they are."""
        size = self.networks.fixed_size
        if size is not None and (height, width) != size:
            only = size_text(size)
            raise SmaltiError(f"this model takes {only} images only, not {height}x{width}; resize them")
        if size is None and (height % self.stride or width % self.stride):
            sizes = f"multiples of {self.stride}, not {height}x{width}"
            raise SmaltiError(f"image sizes must be {sizes}: give another --image_size, or use pad_to_multiple()")

    # ------------------------------------------------------------------ using the model

    def encode(self, images: Images) -> Tensor:
        """The codes (B, *grid) int64 of images of one size; padded to the stride by repeating the edge.

        Raises:
            SmaltiError: a continuous model, an unreadable image, or images of several sizes (see `encode_many`).
        """
        return self._encode(self._stack(images))

    def encode_latents(self, images: Images) -> Tensor:
        """The latents (B, D, h, w) float32 of images of one size: what the decoder receives; of every system.

        Those of an AE are its features, those of a VAE the means of q(z|x), those of a discrete system the vectors of
        its codes. Images are padded to the stride by repeating the edge.

        Raises:
            SmaltiError: an unreadable image, or images of several sizes (see `encode_latents_many`).
        """
        return self._latents(self._stack(images))

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The images (B, C, H, W) float32 in [0, 1] of codes (B, *grid).

        Args:
            codes: integers in [0, K).
            size: (H, W) to crop to, for images that were padded; by default the grid times the stride.

        Raises:
            SmaltiError: a continuous model, codes of another shape or range, or a size larger than the codes'.
        """
        bottleneck, codes = self.codes_bottleneck, torch.as_tensor(codes, device=self.device)
        check_shape(codes, bottleneck.code_axes, "codes")
        with using(bottleneck) as still:
            return self.decode_latents(still.decode(codes), size)

    def decode_latents(self, latents: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The images (B, C, H, W) float32 in [0, 1] of latents (B, D, h, w); for every system.

        Args:
            latents: of `encode_latents`, from p(z), or between two.
            size: as in `decode`.

        Raises:
            SmaltiError: latents of another shape, or a size larger than theirs.
        """
        check_shape(latents, "B D h w", "latents", D=self.bottleneck.out_channels)
        pixels = latents.shape[2] * latents.shape[3] * self.stride**2
        images = _in_fixed_batches(evaluating(self)._decoded, latents.to(self.device), pixels, "latents")
        return images if size is None else crop_to(images, size)

    def reconstruct(self, images: Images) -> Tensor:
        """Images of one size through the bottleneck and back, (B, C, H, W) float32 in [0, 1]; for every system."""
        return self._reconstruct(self._stack(images))

    def encode_many(self, images: Images, batch_size: int = 64) -> list[Encoded]:
        """As `encode`, for images of any mixture of sizes: one (codes, size) for each, in order."""
        listed = to_images(images, self.config.preprocessing.reading)
        codes = map_by_size(lambda batch: self._encode(batch).cpu(), listed, batch_size)
        return [Encoded(own, (image.shape[1], image.shape[2])) for own, image in zip(codes, listed, strict=True)]

    def encode_latents_many(self, images: Images, batch_size: int = 64) -> list[EncodedLatents]:
        """As `encode_latents`, for images of any mixture of sizes: one (latents, size) for each, in order."""
        listed = to_images(images, self.config.preprocessing.reading)
        latents = map_by_size(lambda batch: self._latents(batch).cpu(), listed, batch_size)
        return [
            EncodedLatents(own, (image.shape[1], image.shape[2])) for own, image in zip(latents, listed, strict=True)
        ]

    def decode_many(self, encoded: Sequence[Encoded], batch_size: int = 64) -> list[Tensor]:
        """As `decode`, for what `encode_many` gave: one image (C, H, W) for each, in order."""
        return self._decode_many(self.decode, encoded, batch_size)

    def decode_latents_many(self, encoded: Sequence[EncodedLatents], batch_size: int = 64) -> list[Tensor]:
        """As `decode_latents`, for what `encode_latents_many` gave: one image (C, H, W) for each, in order."""
        return self._decode_many(self.decode_latents, encoded, batch_size)

    def reconstruct_many(self, images: Images, batch_size: int = 64) -> list[Tensor]:
        """As `reconstruct`, for images of any mixture of sizes: one (C, H, W) for each, in order."""
        return map_by_size(self._reconstruct, to_images(images, self.config.preprocessing.reading), batch_size)

    def sample(self, num: int, *, like: Images | None = None, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """Images (num, C, H, W) float32 in [0, 1] of latents that `sample_latents` gives."""
        sampled = self.sample_latents(num, like=like, seed=seed, temperature=temperature)
        return self.decode_latents(sampled.latents, sampled.size)

    def sample_latents(
        self, num: int, *, like: Images | None = None, seed: int = 0, temperature: float = 1.0
    ) -> LatentSample:
        """Sample latents z ~ p(z), for images of the size that the model was trained on, or z ~ q(z|x) around an image.

        Of a discrete system p(z) is the one of its ELBO, mostly uniform: codes that know nothing of each other.

        Args:
            num: how many.
            like: the image x.
            seed: of the random numbers.
            temperature: scales the standard deviation: 0 gives the mean of p(z), or of q(z|x). Of codes it divides the
                logits; it has no effect, and is refused, where p(z) is uniform.

        Raises:
            SmaltiError: a model without a p(z), with a q(z|x) that is one point, or a temperature without effect.
        """
        bottleneck, size = self.bottleneck, self.config.preprocessing.size
        if num < 1:
            raise SmaltiError(f"the number of samples must be at least 1, not {num}")
        if like is not None and not bottleneck.random_posterior:
            raise SmaltiError("q(z|x) of this model is one point, the image's reconstruction: reconstruct it instead")
        if not bottleneck.has_prior:
            remedy = "sample from a vae, or interpolate between images of this one"
            raise SmaltiError(f"this model has no p(z) to sample from; {remedy}")
        with using(self) as still, torch.random.fork_rng():
            bottleneck = still.bottleneck
            torch.manual_seed(seed)
            if like is not None:
                images = self._stack(like)
                check_shape(images, "B C H W", "the image", B=1)
                features = self._of_features(_themselves, images).expand(num, -1, -1, -1)
                sample = bottleneck.sample_posterior(features, temperature)
                return LatentSample(sample.latents, sample.codes, (images.shape[2], images.shape[3]))
            height, width = self.grid
            if isinstance(bottleneck, DiscreteBottleneck):
                codes = bottleneck.sample_codes(num, height, width, temperature).to(self.device)
                return LatentSample(bottleneck.decode(codes), codes, size)
            latents = bottleneck.sample_prior(num, height, width, temperature).to(self.device)
            return LatentSample(latents, None, size)

    def interpolate(self, start: Images, end: Images, steps: int = 8) -> Tensor:
        """Images (steps, C, H, W) on the way between two of one size, see `Bottleneck.interpolate`.

        The first and the last are their reconstructions, bit for bit.

        Raises:
            SmaltiError: fewer than two steps, not one image at each end, or images of two sizes.
        """
        if steps < 2:
            raise SmaltiError(f"an interpolation has at least 2 steps, its ends, not {steps}")
        ends = self._stack([start, end])
        check_shape(ends, "B C H W", "the images at the ends", B=2)
        with using(self) as still:
            first, last = self._of_features(_themselves, ends)
            path = still.bottleneck.interpolate(first, last, torch.linspace(0, 1, steps)).float()
            before, after = self._latents(ends).split(1)
        latents, size = torch.cat([before, path[1:-1], after]), (ends.shape[2], ends.shape[3])
        return self.decode_latents(latents, size)

    def _stack(self, images: Images) -> Tensor:
        listed = to_images(images, self.config.preprocessing.reading)
        sizes = {tuple(image.shape[-2:]) for image in listed}
        if len(sizes) != 1:
            found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)) or "none"
            raise SmaltiError(f"expected images of one size, got {found}; use encode_many() or reconstruct_many()")
        return stacked(listed)

    def _decode_many(
        self,
        decode: Callable[[Tensor], Tensor],
        encoded: Sequence[tuple[Tensor, tuple[int, int]]],
        batch_size: int,
    ) -> list[Tensor]:
        images = map_by_size(lambda batch: decode(batch).cpu(), [own for own, _ in encoded], batch_size, self.stride)
        return [crop_to(image, size) for image, (_, size) in zip(images, encoded, strict=True)]

    def _encode(self, images: Tensor) -> Tensor:
        return self._of_features(evaluating(self).codes_bottleneck.encode, images)

    def _latents(self, images: Tensor) -> Tensor:
        bottleneck = evaluating(self).bottleneck
        return self._of_features(lambda features: bottleneck(features).latents.float(), images)

    def _decoded(self, latents: Tensor) -> Tensor:
        return self.tiles.decode(latents, lambda part: self.likelihood.mean(self.decoder(part)))

    def _reconstruct(self, images: Tensor) -> Tensor:
        return self.decode_latents(self._latents(images), (images.shape[2], images.shape[3]))

    def _of_features(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What a function makes, position by position, of the features of images (B, C, H, W): (B, ..., h, w)."""
        still, tiles, (height, width) = evaluating(self), self.tiles, images.shape[2:]
        self.check_fits(height, width)

        def of_batch(batch: Tensor) -> Tensor:
            return tiles.encode(batch, lambda part: still.features(part.to(self.device)), function)

        rows, columns = tiles.padded(height, width)
        return _in_fixed_batches(of_batch, images, rows * columns, "images")


def _themselves(features: Tensor) -> Tensor:
    return features


@torch.no_grad()
def _in_fixed_batches(function: Callable[[Tensor], Tensor], inputs: Tensor, pixels: int, name: str) -> Tensor:
    """Apply a function to inputs (B, ...) in batches whose size depends on the pixels of an image alone.

    Convolutions round differently for different batch sizes, and once in 30,000 codes that decides between two code
    vectors. With batches always of the same size (the last one filled up) an image has the same codes and the same
    reconstruction whether it comes alone or among others.

    Raises:
        SmaltiError: inputs without pixels.
    """
    if not pixels:
        raise SmaltiError(f"{name} must have pixels, not the shape {tuple(inputs.shape)}")
    count = max(1, FIXED_BATCH_PIXELS // pixels)
    missing = -len(inputs) % count
    filled = F.pad(inputs, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else inputs
    found = [function(batch) for batch in filled.split(count)]
    return (found[0] if len(found) == 1 else torch.cat(found))[: len(inputs)]


def map_by_size(
    function: Callable[[Tensor], Iterable[T]], images: list[Tensor], batch_size: int, stride: int = 1
) -> list[T]:
    """Apply a function of (B, C, H, W) to images (C, H, W) of any sizes, in batches of equal size; results in order.

    A batch holds at most `batch_size` images and at most about 4 million pixels, so that memory stays bounded; of grids
    of codes or latents, (..., h, w), a position counts for `stride` x `stride` pixels.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(index)
    results: dict[int, T] = {}
    for shape, indices in groups.items():
        count = max(1, min(batch_size, PIXELS_AT_ONCE // (shape[-2] * shape[-1] * stride**2)))
        for start in range(0, len(indices), count):
            chosen = indices[start : start + count]
            results.update(zip(chosen, function(stacked([images[index] for index in chosen])), strict=True))
    return [results[index] for index in range(len(images))]
