"""Encoder and decoder: residual convolutional networks like DALL-E's, strided ones like VQ-VAE's, and a small MLP."""

import itertools
import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from smalti.configs import Family
from smalti.errors import SmaltiError
from smalti.images.preprocessing import size_of
from smalti.ranges import Count, Kernel, Range, Size

Stride = Annotated[int, Range(1, 1 << 12)]


class Networks(ABC):
    """A recipe for an encoder and the decoder that mirrors it."""

    stride: int  # pixels per grid position, in both directions
    fixed_size: tuple[int, int] | None = None  # the only image height and width, or None
    grey: float = 0.5  # what the encoder sees as 0: it is subtracted from the images
    reach: int | None = None  # pixels beyond a grid cell that its code, or its pixels, may depend on; None is all

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the features of an image of any size, which is padded to the stride."""
        return -(-height // self.stride), -(-width // self.stride)

    @abstractmethod
    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """A module from images (B, C, H, W) to (B, features, H/stride, W/stride)."""

    @abstractmethod
    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """A module from latents (B, D, h, w) to the likelihood's parameters (B, parameters, H, W)."""


def in_own_type(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A hook before a network's forward pass: its inputs in the type of its weights, unless autocast decides."""
    weights = next(network.parameters(), None)
    if weights is None or torch.is_autocast_enabled(weights.device.type):
        return inputs
    return tuple(each.to(weights.dtype) for each in inputs)


class Convolution(nn.Conv2d):
    """A convolution that keeps the size, with the initialisation of DALL-E: weights N(0, 1/fan_in), bias 0."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        nn.init.normal_(self.weight, std=(in_channels * kernel**2) ** -0.5)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w), in the type of the weights or that of autocast."""
        autocast = torch.is_autocast_enabled(input.device.type)
        return super().forward(input if autocast else input.to(self.weight.dtype))


class Head(Convolution):
    """The 1x1 convolution next to the bottleneck or the likelihood: float32 also under autocast, as in DALL-E.

    With weights of another type, too: an identity path through the network stays in float32.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w), float32."""
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return self._conv_forward(input.float(), self.weight.float(), bias)


class ResidualBlock(nn.Module):
    """Pre-activation bottleneck block: identity + gain * (ReLU, convolution) repeated, with fewer channels between.

    The identity path stays in float32 under autocast, so that bf16 rounds only the small residual updates.
    """

    def __init__(self, in_channels: int, out_channels: int, *, inner_channels: int, kernels: list[int], gain: float):
        super().__init__()
        widths = [in_channels, *[inner_channels] * (len(kernels) - 1), out_channels]
        layers = zip(itertools.pairwise(widths), kernels, strict=True)
        self.convolutions = nn.ModuleList(Convolution(before, after, kernel) for (before, after), kernel in layers)
        self.shortcut = Head(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        self.gain = gain

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w)."""
        update = inputs
        for convolution in self.convolutions:
            update = convolution(update.relu())
        return torch.add(self.shortcut(inputs), update.float(), alpha=self.gain)


class ResidualNetworks(Networks):
    """Groups of residual blocks with max-pooling (encoder) or nearest-neighbour upsampling (decoder) between them [1].

    The defaults of `block_ratio` and `convolutions` are DALL-E's; its own networks are width=256, depth=2,
    stride=8, stem_kernel=7.

    Args:
        stride: pixels per grid position, a power of two.
        width: channels of the group at the finest resolution; each coarser group has twice as many.
        depth: residual blocks in a group.
        patch: the encoder first folds patch x patch pixels into channels (and the decoder unfolds at its end): saves
            most of the arithmetic where it buys least. A power of two that divides the stride; 1 is DALL-E's.
        block_ratio: a block's outer channels divided by its inner ones.
        convolutions: convolutions in a block, one of them 1x1 (next to the bottleneck's side), the others 3x3.
        stem_kernel: size of the encoder's first convolution, odd.

    References:
        [1] Ramesh et al. Zero-Shot Text-to-Image Generation. 2021. arXiv:2102.12092, appendix A.1
    """

    def __init__(
        self,
        *,
        stride: Stride = 4,
        width: Size = 64,
        depth: Count = 2,
        patch: Stride = 1,
        block_ratio: Size = 4,
        convolutions: Annotated[int, Range(2, 64)] = 4,
        stem_kernel: Kernel = 3,
    ):
        if stride < 1 or stride & (stride - 1) or patch < 1 or patch & (patch - 1) or stride % patch:
            raise SmaltiError(f"stride, and patch that divides it, must be powers of two, not {stride} and {patch}")
        if width < block_ratio or depth < 1 or convolutions < 2 or stem_kernel % 2 == 0:
            given = f"{width=}, {block_ratio=}, {depth=}, {convolutions=}, {stem_kernel=}"
            needed = "width >= block_ratio, depth >= 1, convolutions >= 2 and an odd stem_kernel"
            raise SmaltiError(f"need {needed}, not {given}")
        self.stride, self.patch, self.depth, self.block_ratio = stride, patch, depth, block_ratio
        self.convolutions, self.stem_kernel = convolutions, stem_kernel
        self.widths = [width * 2**group for group in range((stride // patch).bit_length())]
        self.gain = 1 / (len(self.widths) * depth) ** 2
        wide = depth * (convolutions - 1)  # 3x3 convolutions at each resolution
        self.reach = patch * (stem_kernel // 2 + wide * (2 ** len(self.widths) - 1))

    def _groups(self, before: int, widths: list[int], kernels: list[int], between: nn.Module) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [between] if layers else []
            for _ in range(self.depth):
                inner = width // self.block_ratio
                layers.append(ResidualBlock(before, width, inner_channels=inner, kernels=kernels, gain=self.gain))
                before = width
        return layers

    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """Images to features."""
        stem = Convolution(image_channels * self.patch**2, self.widths[0], self.stem_kernel)
        groups = self._groups(self.widths[0], self.widths, [3] * (self.convolutions - 1) + [1], nn.MaxPool2d(2))
        fold = [nn.PixelUnshuffle(self.patch)] if self.patch > 1 else []
        return nn.Sequential(*fold, stem, *groups, nn.ReLU(), Head(self.widths[-1], features))

    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """Latents to the likelihood's parameters."""
        widths, lifted = self.widths[::-1], self.widths[-1] // 2
        upsample = nn.Upsample(scale_factor=2, mode="nearest")
        groups = self._groups(lifted, widths, [1] + [3] * (self.convolutions - 1), upsample)
        unfold = [nn.PixelShuffle(self.patch)] if self.patch > 1 else []
        last = Head(widths[-1], parameters * self.patch**2)
        return nn.Sequential(Head(latents, lifted), *groups, nn.ReLU(), last, *unfold)


class StridedNetworks(Networks):
    """Strided 4x4 convolutions, then residual blocks at the coarsest resolution: those of the VQ-VAE's authors [1].

    ReLU, 3x3 to `residual_channels`, ReLU, 1x1 back is a residual block; the decoder mirrors all of it with transposed
    convolutions. PyTorch's default initialisation.

    Args:
        stride: pixels per grid position, a power of two.
        width: channels at the coarsest resolution; half of them before it.
        depth: residual blocks.
        residual_channels: channels inside a residual block.

    References:
        [1] van den Oord, Vinyals, Kavukcuoglu. Neural Discrete Representation Learning. 2017. arXiv:1711.00937;
            the sizes are those of the authors' example on CIFAR-10 (google-deepmind/sonnet, vqvae_example.ipynb)
    """

    def __init__(
        self,
        *,
        stride: Annotated[int, Range(2, 1 << 12)] = 4,
        width: Annotated[int, Range(2, 1 << 20)] = 128,
        depth: Annotated[int, Range(0, 1 << 10)] = 2,
        residual_channels: Size = 32,
    ):
        if stride < 2 or stride & (stride - 1) or width < 2 or depth < 0 or residual_channels < 1:
            given = f"{stride=}, {width=}, {depth=}, {residual_channels=}"
            needed = "a stride that is a power of two, width >= 2, depth >= 0 and residual_channels >= 1"
            raise SmaltiError(f"need {needed}, not {given}")
        self.stride, self.width, self.depth, self.residual_channels = stride, width, depth, residual_channels
        self.reach = (3 + depth) * stride - 2  # of the decoder: its 3x3 convolutions, then transposed ones

    def _residual(self) -> list[nn.Module]:
        return [*(_PlainBlock(self.width, self.residual_channels) for _ in range(self.depth)), nn.ReLU()]

    def _strided(self, kind: type[nn.Conv2d | nn.ConvTranspose2d], first: int, last: int) -> list[nn.Module]:
        widths = [first, *[self.width // 2] * (self.stride.bit_length() - 2), last]
        pairs = itertools.pairwise(widths)
        layers = ((kind(before, after, 4, stride=2, padding=1), nn.ReLU()) for before, after in pairs)
        return list(itertools.chain.from_iterable(layers))

    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """Images to features."""
        down = self._strided(nn.Conv2d, image_channels, self.width)
        last = nn.Conv2d(self.width, self.width, 3, padding=1)
        return nn.Sequential(*down, last, *self._residual(), nn.Conv2d(self.width, features, 1))

    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """Latents to the likelihood's parameters."""
        up = self._strided(nn.ConvTranspose2d, self.width, parameters)
        return nn.Sequential(nn.Conv2d(latents, self.width, 3, padding=1), *self._residual(), *up[:-1])


class _PlainBlock(nn.Module):
    """inputs + 1x1(ReLU(3x3(ReLU(inputs))))."""

    def __init__(self, channels: int, inner_channels: int):
        super().__init__()
        self.inner = nn.Conv2d(channels, inner_channels, 3, padding=1)
        self.outer = nn.Conv2d(inner_channels, channels, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        return inputs + self.outer(self.inner(inputs.relu()).relu())


class MlpNetworks(Networks):
    """Fully connected layers, for studies on small images such as MNIST.

    Args:
        image_size: height and width of the images, as 28 or 16x32; no other size is taken.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        decoder_hidden: widths of the decoder's hidden layers, where they are others.
        grid: (h, w) of the features; (1, 1) is one vector, (1, 20) is 20 variables.
        activation: "tanh" or "relu".
        start: first weights: "xavier" with zero biases, or "small": PyTorch's own, those of published categorical VAEs;
            with larger ones their logits saturate in the first steps and stay there.
        grey: what the encoder sees as 0; with 0 a black background adds nothing to the first layer.
    """

    def __init__(
        self,
        *,
        image_size: int | str,
        hidden: tuple[Size, ...] = (200, 200),
        decoder_hidden: tuple[Size, ...] | None = None,
        grid: tuple[Size, Size] = (1, 1),
        activation: Literal["tanh", "relu"] = "tanh",
        start: Literal["xavier", "small"] = "xavier",
        grey: float = 0.5,
    ):
        activations = {"tanh": nn.Tanh, "relu": nn.ReLU}
        if activation not in activations:
            raise SmaltiError(f"activation must be 'tanh' or 'relu', not {activation!r}")
        if start not in ("xavier", "small"):
            raise SmaltiError(f"start must be 'xavier' or 'small', not {start!r}")
        self.fixed_size = self.size = size_of(image_size)
        self.stride = max(self.size)
        self.hidden, self.grid, self.start, self.grey = hidden, grid, start, grey
        self.decoder_hidden = hidden[::-1] if decoder_hidden is None else decoder_hidden
        self.activation = activations[activation]

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """That of the only size."""
        return self.grid

    def _layers(self, widths: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            linear = nn.Linear(before, after)
            if self.start == "xavier":
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
            layers += [self.activation()] * (index > 0) + [linear]
        return layers

    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """Images to features."""
        height, width = self.grid
        layers = self._layers([image_channels * math.prod(self.size), *self.hidden, features * height * width])
        return nn.Sequential(nn.Flatten(), *layers, nn.Unflatten(1, (features, height, width)))

    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """Latents to the likelihood's parameters."""
        height, width = self.grid
        layers = self._layers([latents * height * width, *self.decoder_hidden, parameters * math.prod(self.size)])
        return nn.Sequential(nn.Flatten(), *layers, nn.Unflatten(1, (parameters, *self.size)))


NETWORKS: Family[Networks] = Family(
    "networks", Networks, residual=ResidualNetworks, strided=StridedNetworks, mlp=MlpNetworks
)
