"""Distances of samples to the data, beside those of real images to real ones and of reconstructions to real ones."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from smalti.data.batches import Pixels, evenly_spread, some_images
from smalti.data.config import Data
from smalti.data.sources import open_data
from smalti.data.splits import SPLITS, Split
from smalti.errors import SmaltiError
from smalti.evaluation.catalogue import in_order
from smalti.evaluation.perception import FeatureNetwork, Observer
from smalti.images.pixels import model_images
from smalti.images.preprocessing import Preprocessing

AT_ONCE = 64
SEED = 0


def measure_samples(
    result: dict[str, Any],
    data: Data,
    num: int,
    preprocessing: Preprocessing,
    networks: Mapping[str, FeatureNetwork],
    sample: Callable[[Tensor], Tensor],
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
    pixels = Pixels(open_data(data, split), preprocessing, memory_bytes=0)
    places = torch.tensor(evenly_spread(len(pixels), num))
    if len(places) < num:
        warnings.warn(
            f"the {split} split has {len(places)} images, so {len(places)} samples are compared", stacklevel=3
        )
    observer, generator = Observer(networks), torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        for some in places.split(AT_ONCE):
            images = model_images(torch.from_numpy(pixels.gather(some.tolist())), preprocessing, generator)
            observer.add("split", images)
            observer.add("sample", sample(some))
            if reconstruct:
                observer.add("reconstruction", reconstruct(images))
        for images in _of_another_split(data, split, preprocessing, len(places)):
            observer.add("real", images)
    found = {}
    for kind in ("sample", "real", "reconstruction"):
        found |= observer.distances(kind, "split", paired=kind == "reconstruction", prefix=f"{kind}_")
    result["num_samples"] = len(places)
    result["metrics"] = in_order(result["metrics"] | {name: distance.value for name, distance in found.items()})
    result["spread"] = in_order(result["spread"] | {name: distance.spread for name, distance in found.items()})


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
