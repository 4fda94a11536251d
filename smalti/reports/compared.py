"""What a comparison found, for its page and for its JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from smalti.evaluation.catalogue import format_metric
from smalti.evaluation.comparison import GradientNoise, GradientPath, PCABaseline
from smalti.evaluation.samples import MeasuredSets
from smalti.models.autoencoder import Autoencoder
from smalti.models.bottlenecks import DiscreteBottleneck


@dataclass
class System:
    """One system of a comparison, all its seeds.

    Attributes:
        name: of the recipe.
        model: of the first seed.
        evaluations: what `evaluate` gave, for each seed.
        records: the first seed's metrics.jsonl.
        path: of the encoder's gradient, first seed.
        noise: of that gradient.
        relaxed: the relaxation gap over temperature, first seed; None where nothing is relaxed.
        points: (bits per pixel, PSNR) of the first seed.
        pictures: of the latents, with captions.
        images_per_second: in training, median.
        peak_bytes: of memory in training, if measured.
        bits_per_image: T log2 K; None for continuous latents.
    """

    name: str
    model: Autoencoder
    evaluations: list[dict[str, Any]]
    records: list[dict[str, float]]
    path: GradientPath
    noise: GradientNoise
    relaxed: dict[str, Any] | None
    points: list[tuple[float, float]]
    pictures: list[tuple[Image.Image, str]]
    images_per_second: float
    peak_bytes: int | None
    bits_per_image: float | None

    def values(self, name: str) -> list[float]:
        """One metric of every seed."""
        return [one["metrics"][name] for one in self.evaluations if name in one["metrics"]]

    def text(self, name: str) -> str:
        """The mean over seeds, with the standard deviation where there are several."""
        found = self.values(name)
        if not found:
            return "-"
        return format_metric(name, statistics.mean(found), statistics.stdev(found) if len(found) > 1 else None)

    @property
    def discrete(self) -> DiscreteBottleneck | None:
        """Its bottleneck, if that has codes."""
        bottleneck = self.model.bottleneck
        return bottleneck if isinstance(bottleneck, DiscreteBottleneck) else None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of its features, for images of the size that it was trained on."""
        return self.model.grid

    @property
    def num_latents(self) -> int:
        """D h w."""
        height, width = self.grid
        return self.model.bottleneck.out_channels * height * width


@dataclass
class TrainedPrior:
    """A prior of a comparison, on the codes of a system's first seed.

    Attributes:
        name: of the recipe.
        system: whose codes.
        evaluation: what `evaluate` gave.
        num_parameters: of its network.
        images_per_second: in training, median.
    """

    name: str
    system: str
    evaluation: dict[str, Any]
    num_parameters: int
    images_per_second: float

    @property
    def title(self) -> str:
        """With its system."""
        return f"{self.system} + {self.name}"


@dataclass(frozen=True)
class Origin:
    """Where a set of images came from.

    Attributes:
        title: the name of the set, as shown.
        kind: "p(z)", "noise" (in place of one), "prior", "real" or "reconstruction".
        system: that decoded it; none of real images.
        prior: that sampled its codes.
    """

    title: str
    kind: str
    system: str = ""
    prior: str = ""


@dataclass
class Comparison:
    """All that was compared.

    Attributes:
        systems: with their numbers.
        priors: on codes of theirs.
        settings: common to all systems.
        images: (B, C, H, W) to look at side by side.
        origins: of the sets, in the order in which they are shown.
        sets: images that were sampled, real ones and reconstructions, and their distances to the split.
        pca: the baselines, by the number of dimensions.
    """

    systems: Sequence[System]
    priors: Sequence[TrainedPrior]
    settings: Mapping[str, Any]
    images: Tensor
    origins: Sequence[Origin]
    sets: MeasuredSets
    pca: Mapping[int, PCABaseline]

    @property
    def split(self) -> str:
        """What was measured."""
        return self.systems[0].evaluations[0]["split"]

    @property
    def set_metrics(self) -> list[str]:
        """The names of the distances of sets, such as fd_effnet; none where no network looked."""
        return list(next(iter(self.sets.distances.values()), {}))

    def distance(self, origin: Origin, metric: str | None = None) -> float | None:
        """The distance of a set to the split, by default in the first metric; None where it was not measured."""
        found = self.sets.distances.get(origin.title, {})
        wanted = metric or next(iter(self.set_metrics), "")
        return found[wanted].value if wanted in found else None

    def of(self, kind: str, system: str = "") -> list[Origin]:
        """The sets of a kind, all or those of one system."""
        return [one for one in self.origins if one.kind == kind and (not system or one.system == system)]
