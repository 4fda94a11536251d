"""The range coder and its frequencies: exact integers in, the same integers out, and as short as they can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec.errors import DamagedFile
from smalti.codec.streams import TOTAL, StreamReader, StreamWriter, to_frequencies


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=50))
def test_frequencies_add_up_and_leave_nobody_out(weights):
    frequencies = to_frequencies(np.array(weights, np.int64))
    assert int(frequencies.sum()) == TOTAL and int(frequencies.min()) >= 1
    total = sum(weights)
    if total:  # within one of the share of what is left after everyone has 1
        exact = [weight * (TOTAL - len(weights)) / total + 1 for weight in weights]
        others = [abs(a - b) for a, b in zip(exact, frequencies.tolist(), strict=True)]
        assert sorted(others)[-2 if len(others) > 1 else -1] <= 1


def big_integer_coder(bits, ones):
    """The interval of a sequence of bits, in exact arithmetic: (low, width) as fractions of 2^n."""
    low, width, scale = 0, 1, 0
    for bit, one in zip(bits, ones, strict=True):
        low, scale = low << 24, scale + 24
        if bit:
            low += width * (TOTAL - one)
        width *= one if bit else TOTAL - one
    return low, width, scale


def test_bits_are_written_by_their_exact_frequencies():
    """The stream names a number in the interval of exact arithmetic, to within the coder's rounding."""
    rng = np.random.default_rng(0)
    ones = rng.integers(1, TOTAL, 40)
    bits = (rng.random(40) < ones / TOTAL).astype(int)
    writer = StreamWriter()
    writer.bits(bits, ones)
    stream = writer.finish()
    words = np.frombuffer(stream, "<u4")
    number = int("".join(f"{word:032b}" for word in words) + "0" * 64, 2)
    low, width, scale = big_integer_coder(bits.tolist(), ones.tolist())
    digits = 32 * len(words) + 64
    low, width = low << max(0, digits - scale), width << max(0, digits - scale)
    number <<= max(0, scale - digits)
    assert low <= number + (width >> 24) and number <= low + width


def test_what_was_written_is_read():
    rng = np.random.default_rng(1)
    ones, bits = rng.integers(1, TOTAL, 1000), rng.integers(0, 2, 1000)
    frequencies = to_frequencies(rng.integers(0, 100, 30))
    symbols, plain = rng.integers(0, 30, 500), rng.integers(0, 1000, 300)
    writer = StreamWriter()
    writer.number(12345)
    writer.bits(bits, ones)
    writer.rice(77, 3)
    writer.symbols(symbols, frequencies)
    writer.uniform(plain, 1000)
    writer.number(0)
    reader = StreamReader(writer.finish())
    assert reader.number(20_000) == 12345
    assert np.array_equal(reader.bits(ones), bits)
    assert reader.rice(3, 1000) == 77
    assert np.array_equal(reader.symbols(500, frequencies), symbols)
    assert np.array_equal(reader.uniform(300, 1000), plain)
    assert reader.number(10) == 0


def test_a_number_larger_than_it_can_be_is_refused():
    writer = StreamWriter()
    writer.number(1000)
    writer.rice(1000, 2)
    stream = writer.finish()
    with pytest.raises(DamagedFile, match="larger than it can be"):
        StreamReader(stream).number(999)
    reader = StreamReader(stream)
    reader.number(1000)
    with pytest.raises(DamagedFile, match="larger than it can be"):
        reader.rice(2, 999)


def test_half_a_word_is_refused():
    with pytest.raises(DamagedFile, match="5 bytes"):
        StreamReader(b"12345")
