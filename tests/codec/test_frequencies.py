"""Logits to frequencies: the table, the shifts, and that noise below the margin never changes anything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec import frequencies as f
from smalti.codec.streams import TOTAL, StreamReader, StreamWriter
from smalti.errors import SmaltiError
from smalti.ops import native


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


@pytest.fixture(params=["auto", "portable", "off"])
def kernels(request, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", request.param)
    try:
        native.kernels()
    except SmaltiError:
        pytest.skip("not compiled")


def nats(found, codes, depth):
    bits = codes[:, None] >> np.arange(depth - 1, -1, -1) & 1
    return np.where(found.asked, np.log1p(np.exp(np.where(bits == 1, -found.odds, found.odds))), 0).sum(1)


@pytest.mark.parametrize("size", [2, 3, 10, 37, 512])
def test_decisions_are_those_of_the_softmax(size, kernels):
    torch.manual_seed(0)
    logits, codes = 3 * torch.randn(50, size), torch.randint(0, size, (50,))
    found = f.decisions(logits, codes.numpy())
    expected = torch.nn.functional.cross_entropy(logits.double(), codes, reduction="none")
    np.testing.assert_allclose(nats(found, codes.numpy(), f.tree_depth(size)), expected, rtol=1e-5)
    plain = f.decisions(logits.double(), codes.numpy())
    assert np.array_equal(plain.asked, found.asked)
    np.testing.assert_allclose(plain.odds[plain.asked], found.odds[plain.asked], rtol=1e-5, atol=2e-6)


def test_noise_is_bounded_alike_by_all_kernels(monkeypatch):
    logits, codes = 5 * torch.randn(40, 300), np.random.default_rng(0).integers(0, 300, 40)
    found = []
    for name in ("auto", "off"):
        monkeypatch.setenv("SMALTI_KERNELS", name)
        found.append(f.decisions(logits, codes))
    asked = found[0].asked
    np.testing.assert_allclose(found[0].noise[asked], found[1].noise[asked], rtol=1e-3)


def test_faint_codes_have_decisions_too(kernels):
    """Codes that a confident prior all but excludes, where sums of float32 would vanish."""
    torch.manual_seed(0)
    logits = torch.randn(30, 64)
    logits[:, 5] += 200
    codes = torch.randint(6, 64, (30,)).numpy()
    found = f.decisions(logits, codes)
    expected = torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(codes), reduction="none")
    np.testing.assert_allclose(nats(found, codes, 6), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 3, 12])
def test_noise_below_the_margin_changes_no_cell(scale, kernels):
    torch.manual_seed(0)
    logits, codes = scale * torch.randn(64, 300), torch.randint(0, 300, (64,)).numpy()
    found = f.decisions(logits, codes)
    for level in range(f.tree_depth(300)):
        asked = found.asked[:, level]
        number = f.find_shift(found.odds[asked, level], found.noise[asked, level])
        assert number is not None
        shift = int(f.shift_of(number))
        wanted = f.cells(found.odds[asked, level], shift)
        for trial in range(20):
            direction = 2 * torch.rand(logits.shape).double() - 1
            noisy = logits.double() * (1 + 1e-5 * (direction.sign() if trial == 0 else direction))
            assert np.array_equal(f.cells(f.decisions(noisy, codes).odds[asked, level], shift), wanted)
        assert np.array_equal(f.cells(f.decisions(logits.double(), codes).odds[asked, level], shift), wanted)


@pytest.mark.parametrize("shift", [None, 0, 40_503])
@pytest.mark.parametrize("size", [2, 37, 300])
def test_codes_are_read_by_the_decisions_that_they_were_written_by(size, shift, kernels, monkeypatch):
    """Also without kernels, what was written with them."""
    torch.manual_seed(0)
    logits, codes = 3 * torch.randn(50, size), torch.randint(0, size, (50,)).numpy()
    logits[:10] *= 60  # faint codes
    found, depth = f.decisions(logits, codes), f.tree_depth(size)
    bits = codes[:, None] >> np.arange(depth - 1, -1, -1) & 1
    writer = StreamWriter()
    for level in range(depth):
        asked = found.asked[:, level]
        writer.bits(bits[asked, level], f.frequencies(found.odds[asked, level], shift))
    stream = writer.finish()
    assert np.array_equal(f.read_codes(logits, shift, StreamReader(stream)), codes)
    assert np.array_equal(f.read_codes(logits.double(), shift, StreamReader(stream)), codes)
    for damaged in (b"", stream[: len(stream) // 8 * 4], bytes(len(stream))):  # and nothing crashes
        broken = logits if native.kernels() is None else torch.where(logits > 2, logits, torch.nan)
        wrong = f.read_codes(broken, shift, StreamReader(damaged))
        assert ((wrong >= 0) & (wrong < size)).all()
    monkeypatch.setenv("SMALTI_KERNELS", "off")
    assert np.array_equal(f.read_codes(logits, shift, StreamReader(stream)), codes)


def test_rounding_to_cells_costs_little():
    """Expected excess of the rounded probabilities over the entropy, at its worst over log-odds and shifts."""
    odds = np.linspace(-12, 12, 4001)
    p = 1 / (1 + np.exp(-odds))
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    excess = []
    for number in range(32):
        shift = int(f.shift_of(number))
        q = f.frequencies(odds, shift) / TOTAL
        excess.append(-(p * np.log2(q) + (1 - p) * np.log2(1 - q)) - entropy)
    assert np.mean(excess, 0).max() < 0.003 and np.min(excess) > -1e-9


def test_certain_logits_are_no_trouble(kernels):
    logits = torch.zeros(1, 8)
    logits[0, 5] = 1e4
    found = f.decisions(logits, np.array([2]))
    assert np.isfinite(found.odds).all() and np.isfinite(found.noise).all() and found.asked.all()
