"""The range coder and its frequencies: exact integers in, the same integers out, and as short as they can be."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.codec.errors import DamagedFile
from smalti.codec.streams import TOTAL, Constriction, NativeCoder, StreamReader, StreamWriter, to_frequencies
from smalti.ops import native

VARIANTS = [kernels for kernels in map(native.load, native.VARIANTS) if kernels is not None]


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


# ------------------------------------------------------------------ our range coder beside constriction's

NUMBERS = st.integers(0, 1 << 20)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("bits"), st.integers(0, 40), NUMBERS, st.sampled_from([0.0, 0.5, 1.0])),
        st.tuples(st.just("symbols"), st.integers(0, 40), NUMBERS, st.sampled_from([1, 2, 3, 100, 4096, 1 << 16])),
        st.tuples(st.just("uniform"), st.integers(0, 40), NUMBERS, st.sampled_from([1, 2, 1000, 4096, 4097, 1 << 30])),
        st.tuples(st.just("number"), st.just(1), NUMBERS, st.just(0)),
        st.tuples(st.just("rice"), st.just(1), st.integers(0, 500), st.integers(0, 12)),
    ),
    max_size=12,
)


def material(operation):
    """The symbols that an operation writes, what it needs to know of them, and what they are below."""
    name, count, seed, detail = operation
    rng = np.random.default_rng(seed)
    match name:
        case "bits":  # also those that are all but certain
            ones = (
                rng.integers(1, TOTAL, count) if detail == 0.5 else np.where(rng.random(count) < detail, TOTAL - 1, 1)
            )
            return rng.integers(0, 2, count), (ones,), 2
        case "symbols":
            return rng.integers(0, detail, count), (to_frequencies(rng.integers(0, 9, detail) ** 8),), detail
        case "uniform":
            return rng.integers(0, detail, count), (detail,), detail + (1 << 12)
        case "number":
            return np.array([seed]), (), (1 << 20) + 1
    return np.array([seed]), (detail,), 501


def write_all(coder, operations):
    writer = StreamWriter()
    writer.coder = coder
    for operation in operations:
        symbols, told, _ = material(operation)
        getattr(writer, operation[0])(int(symbols[0]) if operation[0] in ("number", "rice") else symbols, *told)
    return writer.finish()


def read_all(coder, operations):
    reader = StreamReader(b"")
    reader.coder = coder
    for operation in operations:
        symbols, told, below = material(operation)
        match operation[0]:
            case "bits":
                yield reader.bits(*told)
            case "number" | "rice" as name:
                yield np.array([getattr(reader, name)(*told, below - 1)])
            case name:
                yield getattr(reader, name)(len(symbols), *told)


@pytest.mark.parametrize("kernels", VARIANTS, ids=lambda kernels: kernels.variant)
@settings(max_examples=100, deadline=None)
@given(operations=OPERATIONS)
def test_each_coder_reads_what_the_other_wrote(kernels, operations):
    stream = write_all(NativeCoder(kernels), operations)
    assert stream == write_all(Constriction(), operations)
    words = np.frombuffer(stream, np.uint32)
    for coder in (NativeCoder(kernels, words), Constriction(words)):
        for operation, found in zip(operations, read_all(coder, operations), strict=True):
            assert np.array_equal(found, material(operation)[0])


@pytest.mark.parametrize("kernels", VARIANTS, ids=lambda kernels: kernels.variant)
@settings(max_examples=100, deadline=None)
@given(operations=OPERATIONS, seed=NUMBERS)
def test_a_damaged_stream_gives_wrong_symbols_or_an_error(kernels, operations, seed):
    """Bits flipped, words lacking, or nothing but noise: as many symbols as were asked for, all in their range."""
    rng = np.random.default_rng(seed)
    words = np.frombuffer(write_all(NativeCoder(kernels), operations), np.uint32)
    flipped = words ^ ((rng.random(len(words)) < 0.3) << rng.integers(0, 32, len(words))).astype(np.uint32)
    for damaged in (flipped, words[: len(words) // 2], rng.integers(0, 1 << 32, len(words), np.uint32)):
        for coder in (NativeCoder(kernels, damaged), Constriction(damaged)):
            with contextlib.suppress(DamagedFile):
                for operation, found in zip(operations, read_all(coder, operations), strict=True):
                    symbols, _, below = material(operation)
                    assert found.shape == symbols.shape
                    assert found.min(initial=0) >= 0 and found.max(initial=0) < below


@pytest.mark.parametrize("kernels", VARIANTS, ids=lambda kernels: kernels.variant)
def test_carries_go_through_words_held_back(kernels):
    """Streams of near certain symbols at the ends of the interval, which hold words back and end in every way."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        frequencies = np.array([1, TOTAL - 2, 1]) if seed % 2 else np.array([TOTAL - 2, 1, 1])
        symbols = rng.choice(3, int(rng.integers(1, 30)), p=[0.1, 0.1, 0.8] if seed % 3 else [0.9, 0.05, 0.05])
        streams = []
        for coder in (NativeCoder(kernels), Constriction()):
            coder.write(symbols, frequencies)
            streams.append(coder.finish().tolist())
        assert streams[0] == streams[1]
        assert np.array_equal(
            NativeCoder(kernels, np.array(streams[0], np.uint32)).read(len(symbols), frequencies), symbols
        )
