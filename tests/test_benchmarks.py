"""The benchmarks compare the same work: their helper's arithmetic, and that both sides draw the same codes."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import common
import sampling


def test_ratios_are_taken_round_by_round_in_rotated_order(capsys):
    calls = []

    def side(name, rates):
        rates = itertools.chain([1.0], rates)  # the first is the warm-up
        return lambda: calls.append(name) or next(rates)

    sides = {"a": side("a", [4.0, 6.0, 20.0]), "b": side("b", [2.0, 2.0, 4.0])}
    result = common.compare("work", sides, "a", rounds=3)
    assert result["ratios"]["b"] == {"median": 3.0, "range": [2.0, 5.0]}
    assert result["rates"] == {"a": 6.0, "b": 2.0}
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert "a is 3.0x (2.0 to 5.0)" in capsys.readouterr().out


def test_the_peak_is_not_below_what_a_product_reaches():
    assert common.fma_peak() >= 0.7 * common.product_rate()


def test_the_peak_is_measured_on_normal_numbers():
    """Subnormal numbers take a hundred times as long on some processors."""
    library = common.peak_library()
    if library is None:
        pytest.skip("there is no C compiler")
    for iterations in (0, 1, 100_000, 100_001):
        values = common.peak_chains(library, iterations)
        assert np.isfinite(values).all() and np.abs(values).min() >= 0.2 and len(set(values.tolist())) > len(values) / 2


@pytest.mark.parametrize(
    ("kind", "options"),
    [("pixelcnn", {"channels": 8, "layers": 2}), ("pixelsnail", {"channels": 8, "blocks": 1, "heads": 2})],
)
def test_both_sides_draw_the_same_codes(kind, options):
    prior = sampling.make(kind, 4, **options)
    sampling.check_equal(prior)
    assert sampling.whole(prior, 2)() > 0 and sampling.one_pass(prior, 2)() > 0
