"""Residual convolutional networks like DALL-E's."""

import itertools
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.models.networks.base import Convolution, Head, Networks, Padding, Stride, unfolding
from smalti.ranges import Count, Kernel, Range, Size

Pooling = Literal["max", "average"]
Activation = Literal["relu", "gelu"]


class ResidualBlock(nn.Module):
    """Pre-activation bottleneck block: identity + gain * (activation, convolution) repeated, fewer channels between.

    The identity path stays in float32 under autocast, so that bf16 rounds only the small residual updates.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        inner_channels: int,
        kernels: list[int],
        gain: float,
        padding: Padding,
        activation: nn.Module,
    ):
        super().__init__()
        widths = [in_channels, *[inner_channels] * (len(kernels) - 1), out_channels]
        layers = zip(itertools.pairwise(widths), kernels, strict=True)
        convolutions = (Convolution(before, after, kernel, padding) for (before, after), kernel in layers)
        self.convolutions = nn.ModuleList(convolutions)
        self.shortcut = Head(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        self.gain, self.activation = gain, activation

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h, w)."""
        update = inputs
        for convolution in self.convolutions:
            update = convolution(self.activation(update))
        return torch.add(self.shortcut(inputs), update.float(), alpha=self.gain)


class ResidualNetworks(Networks):
    """Groups of residual blocks with pooling (encoder) or nearest-neighbour upsampling (decoder) between them [1].

    The defaults of `block_ratio`, `convolutions`, `last_kernel`, `padding`, `pooling` and `activation` are DALL-E's;
    its own networks are width=256, depth=2, stride=8, stem_kernel=7, decoder_width=128, grey=-0.125.

    Args:
        stride: pixels per grid position, a power of two.
        width: channels of the group at the finest resolution; each coarser group has twice as many.
        depth: residual blocks in a group.
        patch: the encoder first folds patch x patch pixels into channels (and the decoder unfolds at its end): saves
            most of the arithmetic where it buys least. A power of two that divides the stride; 1 is DALL-E's.
        block_ratio: a block's outer channels divided by its inner ones.
        convolutions: convolutions in a block, one of them 1x1 (next to the bottleneck's side), the others 3x3.
        stem_kernel: size of the encoder's first convolution, odd.
        last_kernel: size of the decoder's last convolution, odd. With 1 each position draws its patch on its own, and
            the borders of patches are seen in photographs; larger ones begin without a pattern (see `unfolding`).
        padding: "zeros" around images and features, or "replicate": their edge is repeated.
        pooling: "max", or "average", which keeps more of a photograph.
        activation: "relu" or "gelu".
        grey: what the encoder sees as 0: it is subtracted from the images.
        decoder_width: channels that the decoder lifts the latents to; by default half those of the coarsest group.

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
        last_kernel: Kernel = 1,
        padding: Padding = "zeros",
        pooling: Pooling = "max",
        activation: Activation = "relu",
        grey: float = 0.5,
        decoder_width: Size | None = None,
    ):
        if stride < 1 or stride & (stride - 1) or patch < 1 or patch & (patch - 1) or stride % patch:
            raise SmaltiError(f"stride, and patch that divides it, must be powers of two, not {stride} and {patch}")
        if width < block_ratio or depth < 1 or convolutions < 2 or stem_kernel % 2 == 0 or last_kernel % 2 == 0:
            given = f"{width=}, {block_ratio=}, {depth=}, {convolutions=}, {stem_kernel=}, {last_kernel=}"
            needed = "width >= block_ratio, depth >= 1, convolutions >= 2 and odd kernels"
            raise SmaltiError(f"need {needed}, not {given}")
        self.stride, self.patch, self.depth, self.block_ratio = stride, patch, depth, block_ratio
        self.convolutions, self.stem_kernel = convolutions, stem_kernel
        self.last_kernel, self.grey = last_kernel, grey
        self.padding: Padding = padding
        self.pool = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}[pooling](2)
        self.activation = {"relu": nn.ReLU, "gelu": nn.GELU}[activation]()
        self.widths = [width * 2**group for group in range((stride // patch).bit_length())]
        self.decoder_width = self.widths[-1] // 2 if decoder_width is None else decoder_width
        self.gain = 1 / (len(self.widths) * depth) ** 2
        wide = depth * (convolutions - 1)  # 3x3 convolutions at each resolution
        self.reach = patch * (max(stem_kernel, last_kernel) // 2 + wide * (2 ** len(self.widths) - 1))

    def _groups(self, before: int, widths: list[int], kernels: list[int], between: nn.Module) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [between] if layers else []
            for _ in range(self.depth):
                block = ResidualBlock(
                    before,
                    width,
                    inner_channels=width // self.block_ratio,
                    kernels=kernels,
                    gain=self.gain,
                    padding=self.padding,
                    activation=self.activation,
                )
                layers.append(block)
                before = width
        return layers

    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """Images to features."""
        stem = Convolution(image_channels * self.patch**2, self.widths[0], self.stem_kernel, self.padding)
        groups = self._groups(self.widths[0], self.widths, [3] * (self.convolutions - 1) + [1], self.pool)
        fold = [nn.PixelUnshuffle(self.patch)] if self.patch > 1 else []
        return nn.Sequential(*fold, stem, *groups, self.activation, Head(self.widths[-1], features))

    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """Latents to the likelihood's parameters."""
        widths, lifted = self.widths[::-1], self.decoder_width
        upsample = nn.Upsample(scale_factor=2, mode="nearest")
        groups = self._groups(lifted, widths, [1] + [3] * (self.convolutions - 1), upsample)
        if self.last_kernel > 1:
            last = unfolding(widths[-1], parameters, self.last_kernel, self.patch, self.padding)
        else:
            unfold = [nn.PixelShuffle(self.patch)] if self.patch > 1 else []
            last = [Head(widths[-1], parameters * self.patch**2), *unfold]
        return nn.Sequential(Head(latents, lifted), *groups, self.activation, *last)
