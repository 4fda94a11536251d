"""Distances of sets: equal to independent references and to torchmetrics, unbiased, with a spread that is theirs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import reference
from smalti.errors import SmaltiError
from smalti.evaluation import distances
from smalti.evaluation.distances import frechet_distance, kernel_distance
from smalti.evaluation.spread import PerImage, bootstrap_counts


def features(num=60, dim=5, seed=0, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


PAIRS = {
    "same distribution": (features(), features(seed=1)),
    "shifted": (features(), features(seed=1, shift=1.0)),
    "wider": (features(), features(seed=1, scale=3.0)),
    "fewer images than features": (features(8, 20), features(8, 20, seed=1)),
    "another number of images": (features(50), features(70, seed=1, shift=0.5)),
    "one feature is constant": (F.pad(features(), (0, 1), value=1.0), F.pad(features(seed=1), (0, 1), value=1.0)),
}


@pytest.mark.parametrize("first, second", PAIRS.values(), ids=PAIRS)
def test_the_frechet_distance_equals_the_numpy_reference(first, second):
    ours = frechet_distance(first, second).value
    assert ours == pytest.approx(reference.frechet_distance(first.double().numpy(), second.double().numpy()), abs=1e-6)


@pytest.mark.parametrize("first, second", PAIRS.values(), ids=PAIRS)
def test_the_kernel_distance_equals_the_numpy_reference(first, second):
    for paired in (False, True)[: 1 + (len(first) == len(second))]:  # pairs are of equal number
        expected = reference.kernel_distance(first.double().numpy(), second.double().numpy(), paired)
        assert kernel_distance(first, second, paired=paired).value == pytest.approx(expected, abs=1e-9, rel=1e-9)


def test_the_kernel_distance_equals_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    for first, second in list(PAIRS.values())[:4]:
        expected = poly_mmd(first.double(), second.double()).item()
        assert kernel_distance(first, second).value == pytest.approx(expected, rel=1e-9)


def test_many_images_are_taken_in_blocks_of_a_thousand():
    first, second = features(2500, 4), features(2500, 4, seed=1, shift=0.2)
    blocks = [kernel_distance(*pair).value for pair in zip(first.chunk(3), second.chunk(3), strict=True)]
    assert kernel_distance(first, second).value == pytest.approx(np.mean(blocks), rel=1e-9)


def test_a_set_has_no_distance_to_itself():
    own = features(100, 30)
    assert frechet_distance(own, own, paired=True).value == pytest.approx(0, abs=1e-6)
    assert kernel_distance(own, own, paired=True) == (0, 0)


def test_the_kernel_distance_is_unbiased_and_the_frechet_distance_is_not():
    """Sets of the same distribution, of 30 and of 60: the first is 0 on average, the second falls with the number."""
    sets = {num: [(features(num, 6, seed), features(num, 6, seed + 1000)) for seed in range(40)] for num in (30, 60)}
    kernel = {num: [kernel_distance(*pair).value for pair in pairs] for num, pairs in sets.items()}
    frechet = {num: [frechet_distance(*pair).value for pair in pairs] for num, pairs in sets.items()}
    for values in kernel.values():
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert np.mean(frechet[60]) < 0.7 * np.mean(frechet[30])


def test_the_spread_is_that_of_other_samples_of_the_same_size(monkeypatch):
    monkeypatch.setattr(distances, "RESAMPLES", 20)
    pairs = [(features(300, 4, seed), features(300, 4, seed + 1000, shift=1.0)) for seed in range(30)]
    for distance in (frechet_distance, kernel_distance):
        found = [distance(*pair) for pair in pairs]
        actual = np.std([one.value for one in found])
        assert np.mean([one.spread for one in found]) == pytest.approx(actual, rel=0.4)


def test_sets_that_are_too_small_are_refused():
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(SmaltiError, match="needs 2 images of each, not 1 and 60"):
            distance(features(1), features())


# ------------------------------------------------------------------ values of every image


def test_means_and_ratios_are_of_sums_and_do_not_depend_on_batches():
    above, below = torch.rand(50), torch.rand(50) + 0.1
    whole, parts = PerImage(), PerImage()
    whole.add(mean=above, ratio=(above, below), nothing=None)
    for start in range(0, 50, 7):
        some = slice(start, start + 7)
        parts.add(mean=above[some], ratio=(above[some], below[some]))
    assert [*whole] == ["mean", "ratio"]
    assert whole.value("mean") == pytest.approx(above.mean().item(), rel=1e-6)
    assert whole.value("ratio") == pytest.approx((above.double().sum() / below.double().sum()).item())
    for name in whole:
        assert whole.value(name) == pytest.approx(parts.value(name)) and whole.spread(name) == parts.spread(name)


def test_the_spread_of_a_mean_is_its_standard_error():
    values = PerImage()
    values.add(mean=torch.randn(400) * 3)
    assert values.spread("mean") == pytest.approx(3 / 20, rel=0.25)


def test_resamples_have_as_many_images_as_there_are():
    counts = bootstrap_counts(37, 10)
    assert counts.sum(1).tolist() == [37] * 10 and torch.equal(counts, bootstrap_counts(37, 10))
    assert not torch.equal(counts, bootstrap_counts(37, 10, seed=1))
