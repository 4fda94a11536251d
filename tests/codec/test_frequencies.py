"""Logits to frequencies: the table, the shifts, and that noise below the margin never changes anything."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec import frequencies as f
from smalti.codec.streams import TOTAL


def test_the_table_is_the_logistic_function_of_its_places():
    table = f._table()
    g = (2 * np.arange(f.TABLE) + 1 - f.TABLE) / f.TABLE
    odds = np.clip(f.SOFTNESS * g / (1 - np.abs(g)), -f.LARGEST_ODDS, f.LARGEST_ODDS)
    assert np.abs(table - TOTAL / (1 + np.exp(-odds))).max() < 1
    assert (table + table[::-1] == TOTAL).all() and (np.diff(table) >= 0).all() and table.min() >= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(1e-6, 0.03))
def test_the_first_clear_shift_is_clear_and_the_first(seed, count, reach):
    rng = np.random.default_rng(seed)
    place, reaches = rng.random(count) * 40, reach * rng.random(count)

    def clear(number):
        return all(
            abs((p + int(f.shift_of(number)) / f.SHIFTS + 0.5) % 1.0 - 0.5) > r
            for p, r in zip(place, reaches, strict=True)
        )

    found = f.clear_shift(place, reaches)
    wanted = next((number for number in range(f.MOST_SHIFTS) if clear(number)), None)
    assert found == wanted or (found is not None and wanted is not None and found > wanted and reach > 0.01)
    if found is not None:
        assert clear(found)


@pytest.mark.parametrize("size", [2, 3, 10, 512])
def test_decisions_are_those_of_the_softmax(size):
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((50, size))
    codes = rng.integers(0, size, 50)
    tree = f.Tree(logits)
    nats = np.zeros(50)
    for level in range(tree.depth):
        odds, _, asked = tree.at(level, codes >> (tree.depth - level))
        bit = codes >> (tree.depth - 1 - level) & 1
        assert not bit[~asked].any()
        nats += np.where(asked, np.log1p(np.exp(np.where(bit == 1, -odds, odds))), 0)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(50), codes]
    np.testing.assert_allclose(nats, expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 3, 12])
def test_noise_below_the_margin_changes_no_cell(scale):
    rng = np.random.default_rng(0)
    logits = scale * rng.standard_normal((64, 300))
    codes = rng.integers(0, 300, 64)
    tree = f.Tree(logits)
    for level in range(tree.depth):
        prefix = codes >> (tree.depth - level)
        odds, noise, asked = tree.at(level, prefix)
        number = f.find_shift(odds[asked], noise[asked])
        assert number is not None
        shift = int(f.shift_of(number))
        for _ in range(20):
            noisy = logits * (1 + 1e-5 * rng.uniform(-1, 1, logits.shape))
            other, _, _ = f.Tree(noisy).at(level, prefix)
            assert np.array_equal(f.cells(odds[asked], shift), f.cells(other[asked], shift))
        worst = logits * (1 + 1e-5 * np.sign(rng.standard_normal(logits.shape)))
        other, _, _ = f.Tree(worst).at(level, prefix)
        assert np.array_equal(f.cells(odds[asked], shift), f.cells(other[asked], shift))


def test_rounding_to_cells_costs_little():
    """Expected excess of the rounded probabilities over the entropy, at its worst over log-odds and shifts."""
    odds = np.linspace(-12, 12, 4001)
    p = 1 / (1 + np.exp(-odds))
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    excess = []
    for number in range(32):
        shift = int(f.shift_of(number))
        q = f.frequencies(f.cells(odds, shift), shift) / TOTAL
        excess.append(-(p * np.log2(q) + (1 - p) * np.log2(1 - q)) - entropy)
    assert np.mean(excess, 0).max() < 0.003 and np.min(excess) > -1e-9


def test_certain_logits_are_no_trouble():
    logits = np.zeros((1, 8))
    logits[0, 5] = 1e4
    odds, noise, asked = f.Tree(logits).at(0, np.array([0]))
    assert math.isfinite(odds[0]) and math.isfinite(noise[0]) and asked[0]
