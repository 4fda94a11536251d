"""Fully connected networks, for images of one small size."""

import itertools
import math
from typing import Literal

from torch import nn

from smalti.errors import SmaltiError
from smalti.images.preprocessing import size_of
from smalti.models.networks.base import Networks
from smalti.ranges import Size


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
