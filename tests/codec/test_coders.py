"""Laws of all coders: what goes in comes out, whatever the shapes; and none says less than its prior's bits."""

import math
import time

import numpy as np
import pytest
import torch

from smalti.codec.adaptive import code_adaptively, least_bits
from smalti.codec.coders import AdaptiveCoder, FixedCoder, HistogramCoder
from smalti.codec.container import CODERS
from smalti.codec.errors import DamagedFile, NotReadBack
from smalti.codec.prior_coder import PriorCoder, tile_places
from smalti.codec.streams import SLACK_BITS, StreamReader, StreamWriter
from smalti.errors import SmaltiError

from .conftest import GRID, K, random_grids, save_prior

PLAIN = {"fixed": FixedCoder, "histogram": HistogramCoder, "adaptive": AdaptiveCoder}


def encode_adaptive(codes, shapes, size, hints=None):
    writer = StreamWriter()
    code_adaptively(writer, codes, shapes, size, hints)
    return writer.finish()


def decode_adaptive(stream, shapes, size, hints=None):
    codes = np.zeros(sum(map(math.prod, shapes)), np.int64)
    code_adaptively(StreamReader(stream), codes, shapes, size, hints)
    return codes


@pytest.fixture(params=CODERS)
def coder(request, prior):
    return PriorCoder(prior) if request.param == "prior" else PLAIN[request.param](K)


def test_round_trip_of_thousands_of_grids(coder):
    for seed in range(3):
        grids = random_grids(1000 if not isinstance(coder, PriorCoder) else 400, seed=seed)
        found = coder.decode(coder.encode(grids), [grid.shape for grid in grids])
        assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))


def test_any_shape(coder):
    rng = np.random.default_rng(0)
    shapes = [(1, 1, 1), (1, 4, 4), (1, 9, 3), (2, 5, 6), (1, 1, 17)]
    grids = [rng.integers(0, K, shape) for shape in shapes]
    found = coder.decode(coder.encode(grids), shapes)
    assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("size", [1, 2, 3, 300, 70_000, 1 << 20, 1 << 21, 1 << 24, (1 << 31) + 1, 1 << 32])
@pytest.mark.parametrize("name", PLAIN)
def test_any_codebook(name, size, kernels, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", kernels)
    if size > PLAIN[name].most_codes:
        with pytest.raises(SmaltiError, match="at most 1,048,576 codes, not .*; the adaptive coder takes it"):
            PLAIN[name](size)
        return
    rng = np.random.default_rng(0)
    grids = [rng.integers(0, size, (1, 5, 5)), np.zeros((1, 5, 5), np.int64), np.full((1, 5, 5), size - 1)]
    coder = PLAIN[name](size)
    stream = coder.encode(grids, verify=True)
    found = coder.decode(stream, [grid.shape for grid in grids])
    assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))
    assert 75 * coder.least_bits <= 8 * len(stream) <= 75 * math.log2(size) + 64 + 16 * math.log2(size)


def test_a_codebook_that_no_file_can_name_and_codes_beyond_it_are_refused():
    for coder in PLAIN.values():
        with pytest.raises(SmaltiError, match="takes codebooks of at most"):
            coder((1 << 32) + 1)
        for wrong in (-1, K):
            with pytest.raises(SmaltiError, match=r"codes must lie in \[0, 37\), not in"):
                coder(K).encode([np.full((1, 2, 2), wrong)])


def test_fixed_length_is_log2_k():
    grids = random_grids(100)
    assert abs(len(FixedCoder(K).encode(grids)) - 100 * 16 * math.log2(K) / 8) <= 8


def test_histogram_is_the_entropy_and_its_table():
    grids = random_grids(500)
    flat = np.concatenate([grid.ravel() for grid in grids])
    shares = np.bincount(flat, minlength=K) / len(flat)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum() * len(flat) / 8
    size = len(HistogramCoder(K).encode(grids))
    assert entropy <= size <= entropy + 8 + K * 4


def test_adaptive_learns():
    """Rows that repeat, and codes that depend on their left neighbour."""
    rng = np.random.default_rng(0)
    chain = [0]
    for _ in range(20_000):
        chain.append((chain[-1] * 7 + int(rng.integers(0, 2))) % K)
    size = len(AdaptiveCoder(K).encode([np.array(chain)[None, None]]))
    assert size * 8 / len(chain) < 1.15  # 1 bit is new
    row = rng.integers(0, K, (1, 1, 64))
    assert len(AdaptiveCoder(K).encode([row.repeat(200, 1)])) < 64 * math.log2(K) / 8 + 700


def test_adaptive_stays_the_same_when_everything_is_certain(monkeypatch):
    """Chances at their ends, where steps of integers might go beyond."""
    rng = np.random.default_rng(0)
    codes = np.minimum(rng.geometric(0.2, 714) - 1, 255).astype(np.int64)
    codes[:300] = 7
    stream = encode_adaptive(codes, [(1, 21, 34)], 256)
    monkeypatch.setenv("SMALTI_KERNELS", "off")
    assert encode_adaptive(codes, [(1, 21, 34)], 256) == stream


def test_a_code_takes_at_least_what_is_said():
    """The cheapest codes of a stream of certain ones, against the bound of `least_bits`."""
    for size in (2, 5, 37, 64, 513):
        cheapest = size - 1 if (size - 1).bit_count() == 1 else 0
        for code in {0, size - 1, cheapest}:
            stream = encode_adaptive(np.full(900, code), [(1, 30, 30)], size)
            assert 900 * least_bits(size) <= 8 * len(stream) + SLACK_BITS


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_stream_that_ends_too_early_ends_the_work(kernels, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", kernels)
    started = time.process_time()
    with pytest.raises(DamagedFile, match="cannot be in 60 bytes"):
        decode_adaptive(bytes(60), [(1, 5000, 5000)], 512)
    if kernels == "auto":
        with pytest.raises(DamagedFile, match="cut off"):
            decode_adaptive(bytes(60), [(1, 3345, 3345)], K)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("codes", "hints"),
    [
        (np.zeros(24, np.int64), None),
        (np.zeros(26, np.int64), None),
        (np.zeros(25, np.int32), None),
        (np.zeros((25, 2), np.int64)[:, 0], None),
        (np.zeros(25, np.int64), np.zeros(24, np.int64)),
    ],
)
def test_arrays_that_do_not_belong_together_never_reach_a_kernel(codes, hints):
    with pytest.raises(SmaltiError):
        encode_adaptive(codes, [(1, 5, 5)], K, hints)


@pytest.mark.parametrize("shapes", [[(-1, -5, 5)], [(1, 5, 5), (-1, 5, 5), (1, 5, 5)], [(1, 5, 5), (0, 3, 3)]])
def test_negative_and_empty_shapes_never_reach_a_kernel(shapes):
    with pytest.raises(SmaltiError):
        encode_adaptive(np.zeros(25, np.int64), shapes, K)


def test_hints_help():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 64, (1, 100, 100))
    hints = (codes + rng.integers(0, 2, codes.shape)).reshape(-1)
    with_hints, without = (len(encode_adaptive(codes.reshape(-1), [codes.shape], 64, hint)) for hint in (hints, None))
    assert with_hints < 0.4 * without


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("size", [2, 37, 1024])
def test_adaptive_in_c_and_in_python_write_the_same_bytes(size, hinted, monkeypatch):
    rng = np.random.default_rng(size)
    shapes = [(1, 6, 7), (2, 4, 4), (2, 4, 4)]
    codes = np.minimum(rng.geometric(0.1, sum(map(math.prod, shapes))) - 1, size - 1).astype(np.int64)
    hints = rng.integers(0, 3, len(codes)) if hinted else None
    streams = []
    for kernels in ("auto", "portable", "off"):
        monkeypatch.setenv("SMALTI_KERNELS", kernels)
        try:
            streams.append(encode_adaptive(codes, shapes, size, hints))
        except SmaltiError:  # nothing was compiled
            continue
        assert np.array_equal(decode_adaptive(streams[-1], shapes, size, hints), codes)
    assert len(set(streams)) == 1


def test_adaptive_ends_its_streams_as_constriction_does(monkeypatch):
    """Many short streams: the end is where range coders differ."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 1 << int(rng.integers(1, 12)), int(rng.integers(1, 9)))
        size, shapes = int(codes.max()) + 1, [(1, 1, len(codes))]
        monkeypatch.setenv("SMALTI_KERNELS", "off")
        plain = encode_adaptive(codes, shapes, size)
        monkeypatch.delenv("SMALTI_KERNELS")
        assert encode_adaptive(codes, shapes, size) == plain


# ------------------------------------------------------------------ priors


class Noisy:
    """A stepper whose logits are off."""

    def __init__(self, stepper, noise):
        self.stepper, self.noise = stepper, noise

    def step(self, previous):
        logits = self.stepper.step(previous).double()
        return logits * (1 + self.noise * (torch.rand_like(logits) * 2 - 1))


@pytest.mark.parametrize("kind", ["pixelcnn", "pixelsnail", "transformer", "histogram"])
def test_a_prior_codes_its_own_bits_and_noise_does_not_matter(kind, folder, model, monkeypatch):
    prior = save_prior(folder / kind, model, folder / "model", kind=kind)
    generator = torch.Generator().manual_seed(0)
    drawn = prior.prior.sample(150, generator=generator)
    grids = [codes[None].numpy() for codes in drawn]
    coder = PriorCoder(prior)
    stream = coder.encode(grids)
    bits = prior.prior.nll(drawn).sum().item() / math.log(2)
    assert bits <= 8 * len(stream) <= 1.02 * bits + 64
    for noise in (0, 1e-6, 1e-5):
        stepper = prior.prior.stepper
        with monkeypatch.context() as patch:
            patch.setattr(prior.prior, "stepper", lambda *a, stepper=stepper, noise=noise: Noisy(stepper(*a), noise))
            found = coder.decode(stream, [grid.shape for grid in grids])
        assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))


@pytest.mark.parametrize("kind", ["pixelcnn", "pixelsnail", "transformer", "histogram"])
def test_what_a_prior_wrote_is_read_back(kind, folder, model):
    """With weights as training leaves them: of larger ones the rounding of a machine may exceed what is safe."""
    prior = save_prior(folder / f"mild {kind}", model, folder / "model", kind=kind, spread=0.05)
    grids, coder = [*random_grids(30), *random_grids(3, shape=(1, 5, 9))], PriorCoder(prior)
    assert coder.encode(grids, verify=True) == coder.encode(grids)


def test_a_prior_whose_rounding_exceeds_the_noise_is_refused(prior, monkeypatch):
    """Whether its stream would be read here or not: within the noise that is allowed for it would, but only here."""
    grids, coder = random_grids(30), PriorCoder(prior)
    shapes, stepper = [grid.shape for grid in grids], prior.prior.stepper
    for noise, is_read in ((9e-6, True), (1e-3, False)):
        with monkeypatch.context() as patch:
            patch.setattr(prior.prior, "stepper", lambda *a, noise=noise: Tilted(stepper(*a), noise))
            with pytest.raises(NotReadBack, match="rounding moves this prior's logits by .* up to 0.5 is safe"):
                coder.encode(grids, verify=True)
            found = coder.decode(coder.encode(grids), shapes)
        assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True)) == is_read


class Tilted(Noisy):
    """A stepper whose logits are off as far as can be: those of odd codes up, the others down."""

    def step(self, previous):
        logits = self.stepper.step(previous).double()
        signs = torch.ones(logits.shape[1]).double()
        signs[::2] = -1
        return (logits + signs * self.noise * logits.abs()).float()


def test_blocks_without_a_shift_are_written_as_they_are(prior, monkeypatch):
    monkeypatch.setattr("smalti.codec.prior_coder.find_shift", lambda *_: None)
    grids, coder = random_grids(40), PriorCoder(prior)
    stream = coder.encode(grids)
    assert abs(len(stream) - 40 * 16 * math.log2(K) / 8) < 100
    found = coder.decode(stream, [grid.shape for grid in grids])
    assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))


def test_labels_and_text_are_coded_without_their_condition(folder, model):
    prior = save_prior(
        folder / "labels", model, folder / "model", kind="transformer", label_kind="class", labels=("a", "b"),
        condition_dropout=0.1,
    )  # fmt: skip
    grids, coder = random_grids(20), PriorCoder(prior)
    found = coder.decode(coder.encode(grids), [grid.shape for grid in grids])
    assert all(np.array_equal(a, b) for a, b in zip(grids, found, strict=True))
    never = save_prior(
        folder / "never", model, folder / "model", kind="transformer", label_kind="class", labels=("a", "b")
    )
    with pytest.raises(SmaltiError, match="condition_dropout 0"):
        PriorCoder(never)


def test_only_causal_priors_code(folder, model):
    maskgit = save_prior(folder / "maskgit", model, folder / "model", kind="maskgit")
    with pytest.raises(SmaltiError, match="maskgit is not causal"):
        PriorCoder(maskgit)


def test_tiles_cover_every_image_once():
    shapes = [(1, 4, 4), (1, 5, 9), (2, 3, 7)]
    places = tile_places(shapes, GRID)
    assert sorted(places[places >= 0]) == list(range(sum(map(math.prod, shapes))))
    assert (places[:, 0] >= 0).all()  # what is beyond an image repeats the code before it
    assert places[:1].tolist() == [list(range(16))]
    assert places[1 + 2].tolist() == [16 + 8, -1, -1, -1, 16 + 17, -1, -1, -1, 16 + 26, -1, -1, -1, 16 + 35, -1, -1, -1]
    two = 16 + 45  # (2, 3, 7): the codes of a position side by side
    assert places[-4, :6].tolist() == [two, two + 21, two + 1, two + 22, two + 7, two + 28]


@pytest.mark.parametrize("name", ["fixed", "prior"])
def test_more_codes_than_a_stream_can_hold_are_refused_at_once(name, prior):
    coder = PriorCoder(prior) if name == "prior" else FixedCoder(K)
    with pytest.raises(DamagedFile, match="cannot be in 4 bytes"):
        coder.decode(b"\0\0\0\0", [(1, 4096, 4096)])


def test_a_histogram_that_does_not_add_up_is_refused():
    stream = HistogramCoder(K).encode(random_grids(3))
    with pytest.raises(DamagedFile, match="add up"):
        HistogramCoder(K).decode(stream, [(1, 4, 4)])
