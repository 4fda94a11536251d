"""Networks of residual blocks with group normalisation, and attention: those of VQGAN and of the many after it."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.models.networks.base import Head, Networks, Stride, unfolding
from smalti.ranges import Count, Kernel, Range, Size

Down = Literal["outer", "symmetric", "average"]
Up = Literal["nearest", "shuffle"]
Layers = OrderedDict[str, nn.Module]  # in the order in which they run; their names are part of the weights' names
EPSILON = 1e-6  # of the group normalisations


@dataclass(frozen=True, kw_only=True)
class Details:
    """In what published networks of this kind differ, beside their sizes; the defaults are those of VQGAN.

    Attributes:
        halvings: how often the encoder halves, after its first levels, and the decoder doubles, after its own first
            ones; by default after each level but the last.
        down: a stride of 2 with zeros at the right and the bottom alone ("outer") or all around ("symmetric"), or the
            "average" of four positions.
        up: nearest-neighbour upsampling and a convolution ("nearest"), or a convolution to four times the channels that
            become 2x2 positions each ("shuffle").
        adaptive: whether the levels of the decoder begin with a normalisation whose scale and shift follow from the
            deviation and the mean of the latents over the image, as in Open-MAGVIT2 (arXiv:2409.04410).
        bias: of the convolutions inside; the first and last ones of a decoder, and the 1x1 ones, always have one.
        shortcut: the 1x1 convolution where channels change is of a block's input ("before"), or of its output
            ("after"), as in the port of MaskGIT's networks.
        code_kernel: of the encoder's last convolution.
    """

    halvings: Annotated[int, Range(0, 12)] | None = None
    down: Down = "outer"
    up: Up = "nearest"
    adaptive: bool = False
    bias: bool = True
    shortcut: Literal["before", "after"] = "before"
    code_kernel: Kernel = 3


class VqganNetworks(Networks):
    """Levels of residual blocks: group normalisation, SiLU, 3x3 convolution, twice; attention at the coarsest [1].

    A level of the encoder ends with a smaller image, one of the decoder (which runs through the levels in reverse)
    with nearest-neighbour upsampling and a convolution. The networks of [1] are width=128, multipliers=(1, 1, 2, 2, 4),
    depth=2, attention=(4,), patch=1, groups=32.

    Args:
        width: channels that the multipliers are of.
        multipliers: channels of each level, the finest first, in widths.
        depth: residual blocks of a level.
        decoder_depth: of the decoder; one more by default.
        stem_width: channels of the first convolution; by default those of the finest level.
        attention: levels, counted from 0, whose blocks are each followed by attention; by default the coarsest.
        middle: blocks between the coarsest level and the rest; by default two with attention between them.
        patch: pixels folded into channels before the first level, as in `ResidualNetworks`; 1 is that of [1].
        groups: of a normalisation; less where a level has not so many channels.
        latent_channels: between the last 3x3 convolution and the 1x1 convolutions around the bottleneck; by default
            those of the coarsest level.
        last_kernel: of the decoder's last convolution.
        grey: what the encoder sees as 0: it is subtracted from the images.
        details: in what published networks differ.
        has_decoder: False where there are weights of an encoder alone.

    The normalisation and the attention see the whole image: codes depend on all of it, and memory grows with the square
    of the positions of levels that have attention.

    References:
        [1] Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. 2020. arXiv:2012.09841
    """

    def __init__(
        self,
        *,
        width: Size = 128,
        multipliers: tuple[Count, ...] = (1, 1, 2, 2, 4),
        depth: Count = 2,
        decoder_depth: Count | None = None,
        stem_width: Size | None = None,
        attention: tuple[Annotated[int, Range(0, 12)], ...] | None = None,
        middle: Annotated[int, Range(0, 64)] | None = None,
        patch: Stride = 1,
        groups: Size = 32,
        latent_channels: Size | None = None,
        last_kernel: Kernel = 3,
        grey: float = 0.5,
        details: Details = Details(),
        has_decoder: bool = True,
    ):
        even = last_kernel % 2 == 0 or details.code_kernel % 2 == 0
        if not 1 <= len(multipliers) <= 12 or patch < 1 or patch & (patch - 1) or even:
            given = f"{multipliers=}, {patch=}, {last_kernel=}, code_kernel={details.code_kernel}"
            raise SmaltiError(f"need 1 to 12 multipliers, a patch that is a power of two and odd kernels, not {given}")
        levels = len(multipliers)
        self.attention = {levels - 1} if attention is None else set(attention)
        if any(level >= levels for level in self.attention):
            raise SmaltiError(
                f"there are {levels} levels, from 0: attention at {max(self.attention)} is not one of them"
            )
        self.halvings = levels - 1 if details.halvings is None else details.halvings
        if self.halvings >= levels:
            raise SmaltiError(f"there are {levels} levels, so at most {levels - 1} halvings, not {self.halvings}")
        self.stride, self.patch = patch * 2**self.halvings, patch
        self.widths = [width * multiplier for multiplier in multipliers]
        self.stem_width = self.widths[0] if stem_width is None else stem_width
        self.depth, self.middle, self.groups, self.grey = depth, middle, groups, grey
        self.decoder_depth = depth + 1 if decoder_depth is None else decoder_depth
        self.latent_channels = self.widths[-1] if latent_channels is None else latent_channels
        self.last_kernel, self.details, self.has_decoder = last_kernel, details, has_decoder
        for channels in (self.stem_width, *self.widths):
            if channels % self._groups(channels):
                raise SmaltiError(f"{channels} channels do not fall into {self.groups} groups; choose another width")

    def _groups(self, channels: int) -> int:
        return min(self.groups, channels)

    def block(self, before: int, after: int) -> "NormedBlock":
        """A residual block with these options."""
        groups = self._groups(before), self._groups(after)
        return NormedBlock(
            before, after, groups=groups, bias=self.details.bias, shortcut_after=self.details.shortcut == "after"
        )

    def attending(self, channels: int) -> "SpatialAttention":
        """Attention between the positions."""
        return SpatialAttention(channels, self._groups(channels))

    def between(self, channels: int) -> Layers:
        """What stands between the coarsest level of the encoder, or of the decoder, and the rest."""
        layers: Layers = OrderedDict()
        for place in range(2 if self.middle is None else self.middle):
            layers[f"middle_block{place}"] = self.block(channels, channels)
            if self.middle is None and not place:
                layers["middle_attention0"] = self.attending(channels)
        return layers

    def level(self, index: int, before: int, depth: int) -> Layers:
        """The blocks of a level, each with its attention."""
        layers: Layers = OrderedDict()
        for place in range(depth):
            layers[f"level{index}_block{place}"] = self.block(before, self.widths[index])
            if index in self.attention:
                layers[f"level{index}_attention{place}"] = self.attending(self.widths[index])
            before = self.widths[index]
        return layers

    def ends_with(self, channels: int) -> Layers:
        """Normalisation and SiLU before a network's last convolution."""
        return OrderedDict(norm=nn.GroupNorm(self._groups(channels), channels, EPSILON), activation=nn.SiLU())

    def encoder(self, image_channels: int, features: int) -> nn.Module:
        """Images to features."""
        layers: Layers = OrderedDict(fold=nn.PixelUnshuffle(self.patch)) if self.patch > 1 else OrderedDict()
        before = self.stem_width
        layers["first"] = nn.Conv2d(image_channels * self.patch**2, before, 3, padding=1, bias=self.details.bias)
        for index, channels in enumerate(self.widths):
            if 0 < index <= self.halvings:
                layers[f"level{index}_halve"] = Halved(before, self.details.down)
            layers |= self.level(index, before, self.depth)
            before = channels
        layers |= self.between(before) | self.ends_with(before)
        layers["last"] = nn.Conv2d(
            before, self.latent_channels, self.details.code_kernel, padding=self.details.code_kernel // 2
        )
        layers["head"] = Head(self.latent_channels, features)
        return nn.Sequential(layers)

    def decoder(self, latents: int, parameters: int) -> nn.Module:
        """Latents to the likelihood's parameters."""
        if not self.has_decoder:
            return NoDecoder()
        before = self.widths[-1]
        layers: Layers = OrderedDict(head=Head(latents, self.latent_channels))
        layers["first"] = nn.Conv2d(self.latent_channels, before, 3, padding=1)
        layers |= self.between(before)
        for index in reversed(range(len(self.widths))):
            if self.details.adaptive:
                layers[f"level{index}_style"] = AdaptiveNorm(before, self._groups(before), latents)
            layers |= self.level(index, before, self.decoder_depth)
            before = self.widths[index]
            if index >= len(self.widths) - self.halvings:
                layers[f"level{index}_double"] = Doubled(before, self.details.up)
        layers |= self.ends_with(before)
        last = unfolding(before, parameters, self.last_kernel, self.patch, "zeros")
        return Styled(layers | OrderedDict(zip(("last", "unfold"), last, strict=False)))


class NormedBlock(nn.Module):
    """inputs + (normalisation, SiLU, 3x3 convolution, twice), with a 1x1 convolution where the channels change."""

    def __init__(self, before: int, after: int, *, groups: tuple[int, int], bias: bool, shortcut_after: bool):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups[0], before, EPSILON)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=bias)
        self.norm2 = nn.GroupNorm(groups[1], after, EPSILON)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=bias)
        self.shortcut_after = shortcut_after
        same, of_input = before == after, after if shortcut_after else before
        self.shortcut = nn.Identity() if same else nn.Conv2d(of_input, after, 1, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, before, h, w) to (B, after, h, w)."""
        update = self.conv1(F.silu(self.norm1(inputs)))
        update = self.conv2(F.silu(self.norm2(update)))
        if isinstance(self.shortcut, nn.Identity):
            return inputs + update
        return self.shortcut(update if self.shortcut_after else inputs) + update


class SpatialAttention(nn.Module):
    """inputs + attention of one head between all positions of an image, after a normalisation."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPSILON)
        self.query, self.key, self.value, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        normed = self.norm(inputs)
        query, key, value = (
            layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.query, self.key, self.value)
        )
        found = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return inputs + self.out(found.transpose(1, 2).reshape(inputs.shape))


class Halved(nn.Module):
    """Height and width divided by two."""

    def __init__(self, channels: int, down: Down):
        super().__init__()
        self.down = down
        padding = 1 if down == "symmetric" else 0
        self.conv = nn.Identity() if down == "average" else nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h/2, w/2)."""
        if self.down == "average":
            return F.avg_pool2d(inputs, 2)
        return self.conv(F.pad(inputs, (0, 1, 0, 1)) if self.down == "outer" else inputs)


class Doubled(nn.Module):
    """Height and width times two."""

    def __init__(self, channels: int, up: Up):
        super().__init__()
        self.up: Up = up
        self.conv = nn.Conv2d(channels, channels * (4 if up == "shuffle" else 1), 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        if self.up == "shuffle":
            return F.pixel_shuffle(self.conv(inputs), 2)
        return self.conv(F.interpolate(inputs, scale_factor=2, mode="nearest"))


class AdaptiveNorm(nn.Module):
    """Group normalisation with the scale and shift that the latents ask for."""

    def __init__(self, channels: int, groups: int, latents: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPSILON, affine=False)
        self.scale, self.shift = nn.Linear(latents, channels), nn.Linear(latents, channels)

    def forward(self, inputs: Tensor, latents: Tensor) -> Tensor:
        """(B, C, h, w), and the latents (B, D, h', w'), to (B, C, h, w)."""
        positions = latents.flatten(2)
        scale, shift = self.scale((positions.var(2) + EPSILON).sqrt()), self.shift(positions.mean(2))
        return self.norm(inputs) * scale[:, :, None, None] + shift[:, :, None, None]


class Styled(nn.Sequential):
    """Layers one after the other, of which some are told the latents."""

    def forward(self, input: Tensor) -> Tensor:
        """Latents (B, D, h, w) to what the last layer gives."""
        values = input
        for layer in self:
            values = layer(values, input) if isinstance(layer, AdaptiveNorm) else layer(values)
        return values


class NoDecoder(nn.Module):
    """In place of the decoder of networks that have none."""

    def forward(self, latents: Tensor) -> Tensor:
        """Raise a SmaltiError."""
        raise SmaltiError("this model has an encoder alone: it gives codes of images, and no images of codes")
