"""What encoders and decoders have in common: their interface, and convolutions that keep the size."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.ranges import Range

Stride = Annotated[int, Range(1, 1 << 12)]
Padding = Literal["zeros", "replicate"]


class Networks(ABC):
    """A recipe for an encoder and the decoder that mirrors it."""

    stride: int  # pixels per grid position, in both directions
    fixed_size: tuple[int, int] | None = None  # the only image height and width, or None
    grey: float = 0.5  # what the encoder sees as 0: it is subtracted from the images
    has_decoder: bool = True  # False where there are weights of an encoder alone
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

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: Padding = "zeros"):
        super().__init__(
            in_channels, out_channels, kernel, padding=kernel // 2, padding_mode=padding if kernel > 1 else "zeros"
        )
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
        """(B, in, h, w) to (B, out, h, w), float32.

        As a product of matrices: on one thread PyTorch's 1x1 convolution of small batches is several times slower.
        """
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            channels_last = input.float().permute(0, 2, 3, 1)
            return F.linear(channels_last, self.weight.float().flatten(1), bias).permute(0, 3, 1, 2)


def unfolding(in_channels: int, parameters: int, kernel: int, patch: int, padding: Padding) -> list[nn.Module]:
    """The end of a decoder: a convolution, and where positions are patches the shuffle to patch x patch pixels each.

    All pixels of a patch begin with the same kernel (ICNR [1]), so that a new decoder draws no pattern of their period.

    References:
        [1] Aitken et al. Checkerboard artifact free sub-pixel convolution. 2017. arXiv:1707.02937
    """
    convolution = Convolution(in_channels, parameters * patch**2, kernel, padding)
    if patch == 1:
        return [convolution]
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight[:: patch**2].repeat_interleave(patch**2, dim=0))
    return [convolution, nn.PixelShuffle(patch)]
