"""Strided convolutional networks: those of the VQ-VAE's authors."""

import itertools
from typing import Annotated

from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.models.networks.base import Networks
from smalti.ranges import Range, Size


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
