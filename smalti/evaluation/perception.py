"""Networks that look at images, and what they have seen of several sets of them.

`effnet` works offline and has names of its own for its numbers. Numbers that others publish have other names, and come
from other packages where those are installed: `inception` (torch-fidelity) gives fid and kid, `lpips` gives lpips.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from smalti.errors import SmaltiError
from smalti.evaluation.distances import Distance, frechet_distance, kernel_distance
from smalti.images.pixels import as_colour, to_uint8
from smalti.models.features import FACTOR, EffNetLite0, enlarged, perceptual_distances


class FeatureNetwork(ABC):
    """Looks at images (B, 3, H, W) in [0, 1] on a device; how a set or a pair of them differs, it says by features."""

    needs: ClassVar[str]  # what to install
    set_metrics: ClassVar[tuple[str, str] | None] = None  # names of the Frechet and the kernel distance
    pair_metric: ClassVar[str | None] = None

    @abstractmethod
    def __init__(self, device: str): ...

    @abstractmethod
    def look(self, images: Tensor) -> Any:
        """What `pooled` and `pair` need of images."""

    def pooled(self, seen: Any) -> Tensor:
        """A vector for each image, (B, D)."""
        raise NotImplementedError

    def pair(self, seen: Any, others: Any) -> Tensor:
        """A distance for each pair of images, (B,)."""
        raise NotImplementedError

    @abstractmethod
    def about(self) -> dict[str, str]:
        """The network, its weights and how images come to it."""


class EffNet(FeatureNetwork):
    """EfficientNet-Lite0 on images enlarged four times: mean features of four stages for sets, all five for pairs.

    The last stage is left out of the sets: it tells objects apart and takes a checkerboard for detail. What is left has
    192 features, so that some hundred images have a covariance of full rank.
    """

    needs = "smalti[perceptual]"
    set_metrics, pair_metric = ("fd_effnet", "kid_effnet"), "effnet_lpips"

    def __init__(self, device: str):
        self.network = EffNetLite0().to(device).eval().requires_grad_(False)

    def look(self, images: Tensor) -> list[Tensor]:
        """The maps of all stages, (B, c, h, w) each."""
        return self.network(enlarged(images))

    def pooled(self, seen: list[Tensor]) -> Tensor:
        """The means over positions of the stages at strides 2, 4, 8 and 16, (B, 192)."""
        return torch.cat([stage.mean((2, 3)) for stage in seen[:-1]], dim=1)

    def pair(self, seen: list[Tensor], others: list[Tensor]) -> Tensor:
        """LPIPS' form with all channels weighted alike, see `perceptual_distances`."""
        return perceptual_distances(seen, others)

    def about(self) -> dict[str, str]:
        """The network, its weights and how images come to it."""
        return {
            "network": "EfficientNet-Lite0, ImageNet; means of 4 stages (192) for sets, 5 stages for pairs",
            "weights_sha256": self.network.weights_hash,
            "input": f"8-bit values, every pixel repeated {FACTOR} x {FACTOR} times",
        }


class Inception(FeatureNetwork):
    """InceptionV3 with the weights of the original FID, by torch-fidelity: what is published as FID and KID.

    Of reconstructions, fid is what papers call rFID. The weights are downloaded by torch-fidelity.
    """

    needs = "torch-fidelity"
    set_metrics = ("fid", "kid")

    def __init__(self, device: str):
        from torch_fidelity.utils import create_feature_extractor  # pyright: ignore[reportMissingImports]

        self.network = create_feature_extractor("inception-v3-compat", ["2048"], cuda=False, verbose=False).to(device)

    def look(self, images: Tensor) -> Tensor:
        """Features (B, 2048) of the last pooling."""
        (features,) = self.network(to_uint8(images).permute(0, 3, 1, 2).contiguous())
        return features

    def pooled(self, seen: Tensor) -> Tensor:
        """The features."""
        return seen

    def about(self) -> dict[str, str]:
        """The network and how images come to it."""
        return {"network": "torch-fidelity inception-v3-compat, 2048", "input": "8-bit values, 299x299 by the network"}


class Lpips(FeatureNetwork):
    """LPIPS 0.1 on AlexNet (arXiv:1801.03924), by its authors' package; the weights are downloaded by it."""

    needs = "lpips"
    pair_metric = "lpips"

    def __init__(self, device: str):
        import lpips  # pyright: ignore[reportMissingImports]

        self.network = lpips.LPIPS(net="alex", verbose=False).to(device).eval().requires_grad_(False)

    def look(self, images: Tensor) -> Tensor:
        """The images; the package takes pairs."""
        return images

    def pair(self, seen: Tensor, others: Tensor) -> Tensor:
        """The package's distance, (B,)."""
        return self.network(seen, others, normalize=True).flatten()

    def about(self) -> dict[str, str]:
        """The network and how images come to it."""
        return {"network": "lpips 0.1, alex", "input": "8-bit values at their own size"}


NETWORKS: dict[str, type[FeatureNetwork]] = {"effnet": EffNet, "inception": Inception, "lpips": Lpips}
DEFAULT = "effnet"
PIXELS_AT_ONCE = 1 << 18


def chosen_networks(names: str | None, device: str) -> dict[str, FeatureNetwork]:
    """The networks that `--distances` names, with commas; by default effnet, with a warning where it is not installed.

    Raises:
        SmaltiError: an unknown name, or its package is missing.
    """
    if names is None:
        try:
            return open_networks([DEFAULT], device)
        except SmaltiError as error:
            warnings.warn(f"no perceptual distances: {error}", stacklevel=2)
            return {}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return {} if wanted == ["none"] else open_networks(wanted, device)


def open_networks(names: Sequence[str], device: str = "cpu") -> dict[str, FeatureNetwork]:
    """The networks of these names, see `NETWORKS`.

    Raises:
        SmaltiError: an unknown name, or its package is missing.
    """
    found = {}
    for name in names:
        if name not in NETWORKS:
            raise SmaltiError(f"distances are by one of {', '.join(NETWORKS)}, or none; not by {name!r}")
        try:
            found[name] = NETWORKS[name](device)
        except OSError as error:
            raise SmaltiError(f"distances by {name} need weights that cannot be downloaded: {error}") from error
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
            what = f"pip install {NETWORKS[name].needs}; {' '.join(str(error).split())}"
            raise SmaltiError(f"distances by {name} need a package that cannot be imported: {what}") from error
    return found


class Observer:
    """Shows sets of images to networks, batch by batch, and keeps what their distances need.

    Images (B, C, H, W) in [0, 1] are rounded to 8 bits, as they would be in a file, and grey ones taken as colour; of
    more than three bands the first three are shown.
    """

    def __init__(self, networks: Mapping[str, FeatureNetwork]):
        self.networks = networks
        self.sets: dict[tuple[str, str], list[Tensor]] = {}  # (set, network) to pooled features

    def add(self, name: str, images: Tensor) -> None:
        """Show images that belong to the set `name`."""
        for part in _few(images):
            self._look(name, part)

    def add_pairs(self, name: str, images: Tensor, other: str, others: Tensor) -> dict[str, Tensor]:
        """Show images of the set `name` with their pairs of the set `other`; the distances of pairs (B,) by metric."""
        found: dict[str, list[Tensor]] = {}
        for part, other_part in zip(_few(images), _few(others), strict=True):
            seen, seen_others = self._look(name, part), self._look(other, other_part)
            for key, network in self.networks.items():
                if network.pair_metric:
                    found.setdefault(network.pair_metric, []).append(network.pair(seen[key], seen_others[key]))
        return {metric: torch.cat(values) for metric, values in found.items()}

    def _look(self, name: str, images: Tensor) -> dict[str, Any]:
        """What each network sees of a few images."""
        seen, rounded = {}, as_colour(images.clamp(0, 1).mul(255).round() / 255)
        for key, network in self.networks.items():
            seen[key] = network.look(rounded)
            if network.set_metrics:
                self.sets.setdefault((name, key), []).append(network.pooled(seen[key]).float().cpu())
        return seen

    def distances(self, name: str, other: str, *, paired: bool = False, prefix: str = "") -> dict[str, Distance]:
        """The distances of two sets, by the name of the metric after `prefix`; `paired` as in `frechet_distance`."""
        return self._measured(
            prefix, {key: (self._features(name, key), self._features(other, key)) for key in self.networks}, paired
        )

    def halves(self, name: str, *, prefix: str) -> dict[str, Distance]:
        """The distances of every other image of a set to the rest of it: what chance gives, at half the number."""
        features = {key: self._features(name, key) for key in self.networks}
        return self._measured(prefix, {key: (own[::2], own[1::2]) for key, own in features.items()}, False)

    def _features(self, name: str, key: str) -> Tensor:
        return torch.cat(self.sets.get((name, key), [torch.empty(0, 1)]))

    def _measured(self, prefix: str, pairs: Mapping[str, tuple[Tensor, Tensor]], paired: bool) -> dict[str, Distance]:
        found = {}
        for key, network in self.networks.items():
            if network.set_metrics and min(map(len, pairs[key])) > 1:
                for metric, distance in zip(network.set_metrics, (frechet_distance, kernel_distance), strict=True):
                    found[prefix + metric] = distance(*pairs[key], paired=paired)
        return found

    def about(self) -> dict[str, dict[str, str]]:
        """Each network's own words."""
        return {name: network.about() for name, network in self.networks.items()}


def _few(images: Tensor) -> tuple[Tensor, ...]:
    """The images in batches of about a quarter of a million pixels, so that their feature maps fit into memory."""
    return images.split(max(1, PIXELS_AT_ONCE // images[0, 0].numel()))
