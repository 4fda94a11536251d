"""Distances of samples to the data, beside those of real images to real ones and of reconstructions to real ones."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smalti.data.batches import Pixels, evenly_spread, some_images
from smalti.data.config import Data
from smalti.data.sources import open_data
from smalti.data.splits import SPLITS, Split
from smalti.errors import SmaltiError
from smalti.evaluation.catalogue import in_order
from smalti.evaluation.distances import Distance
from smalti.evaluation.generation import Sampler
from smalti.evaluation.perception import FeatureNetwork, Observer
from smalti.images.pixels import model_images
from smalti.images.preprocessing import Preprocessing

AT_ONCE = 64
SEED = 0
SHOWN = 16  # images of each set that are kept
REAL = "real images of another split"  # the name of their set


class MeasuredSets(NamedTuple):
    """Sets of images, and how far each is from the images of a split."""

    num_images: int  # of each set
    shown: dict[str, Tensor]  # (B, C, H, W), the first of each set, by its name
    distances: dict[str, dict[str, Distance]]  # by the name of the set, then by that of the metric; where measured


def measure_samples(
    result: dict[str, Any],
    data: Data,
    num: int,
    preprocessing: Preprocessing,
    networks: Mapping[str, FeatureNetwork],
    sample: Sampler,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Add to an evaluation how far samples are from the split, by the distances of its networks.

    Its "metrics" and "spread" get, before the names of the distances, sample_ (samples to the split), real_ (images of
    another split to it: what cannot be improved upon) and, with `reconstruct`, reconstruction_ (what a perfect prior
    would reach). All are of "num_samples" images on each side, since the Frechet distance falls with their number.

    Args:
        result: what `evaluate` or `evaluate_prior` gave.
        data: what it was given.
        num: images to sample, at most as many as the split has.
        preprocessing: of the images.
        networks: what looks at them.
        sample: images (B, C, H, W) for the places (B,) of as many images of the split, whose conditions they share.
        reconstruct: images from images, by a prior's tokenizer.

    Raises:
        SmaltiError: no network compares sets.
    """
    if not any(network.set_metrics for network in networks.values()):
        raise SmaltiError("samples are measured by a distance of sets; give --distances effnet, or leave --samples out")
    split = result["split"]
    sets = measure_sets(
        data,
        split,
        num,
        preprocessing,
        networks,
        {"sample": sample},
        {"reconstruction": reconstruct} if reconstruct else {},
    )
    if sets.num_images < num:
        what = f"the {split} split has {sets.num_images} images, so {sets.num_images} samples are compared"
        warnings.warn(what, stacklevel=3)
    found = {
        f"{'real' if kind == REAL else kind}_{name}": one
        for kind, of_set in sets.distances.items()
        for name, one in of_set.items()
    }
    result["num_samples"] = sets.num_images
    result["metrics"] = in_order(result["metrics"] | {name: distance.value for name, distance in found.items()})
    result["spread"] = in_order(result["spread"] | {name: distance.spread for name, distance in found.items()})


def measure_sets(
    data: Data,
    split: Split,
    num: int,
    preprocessing: Preprocessing,
    networks: Mapping[str, FeatureNetwork],
    samplers: Mapping[str, Sampler],
    reconstructors: Mapping[str, Callable[[Tensor], Tensor]],
) -> MeasuredSets:
    """The distances of several sets of images to the same images of a split, all of as many images.

    Args:
        data: what the split is of.
        split: train, validation, test or all.
        num: images of each set, at most as many as the split has.
        preprocessing: of the images.
        networks: what looks at them; none of them measures nothing, and the sets are only shown.
        samplers: by the names of their sets.
        reconstructors: images from images of the split, by the names of their sets.
    """
    pixels = Pixels(open_data(data, split), preprocessing, memory_bytes=0)
    places = torch.tensor(evenly_spread(len(pixels), num))
    observer, generator = Observer(networks), torch.Generator().manual_seed(SEED)
    shown: dict[str, Tensor] = {}

    def add(name: str, images: Tensor) -> None:
        observer.add(f"set {name}", images)
        shown.setdefault(name, images[:SHOWN].cpu())

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        for some in places.split(AT_ONCE):
            images = model_images(torch.from_numpy(pixels.gather(some.tolist())), preprocessing, generator)
            observer.add("split", images)
            for name, sample in samplers.items():
                add(name, sample(some))
            for name, reconstruct in reconstructors.items():
                add(name, reconstruct(images))
        for images in _of_another_split(data, split, preprocessing, len(places)):
            add(REAL, images)
    distances = {
        name: observer.distances(f"set {name}", "split", paired=name in reconstructors)
        for name in (*samplers, REAL, *reconstructors)
    }
    return MeasuredSets(len(places), shown, distances)


def _of_another_split(data: Data, split: Split, preprocessing: Preprocessing, num: int) -> Iterator[Tensor]:
    """Batches of `num` images that are not in the split, where there are as many."""
    for other in SPLITS[:-1]:
        if split in (other, "all"):
            continue
        with contextlib.suppress(SmaltiError):  # no such split
            images = some_images(data, other, preprocessing, num)
            if len(images) == num:
                yield from images.split(AT_ONCE)
                return
