"""Odd calls of what meets C: each is an error of one line, or answers as the plain form does; none ends the process.

`make sanitize` runs these with the kernels under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smalti.codec.adaptive import code_adaptively
from smalti.codec.frequencies import decisions, read_codes
from smalti.codec.streams import StreamReader, StreamWriter
from smalti.errors import SmaltiError
from smalti.ops.gumbel import gumbel_latents
from smalti.ops.gumbel_noise import seeded_gumbel
from smalti.ops.native import VARIANTS, load
from smalti.ops.nearest import nearest_code, nearest_code_reference
from smalti.priors.layers import attend, by_image, by_position, gate, previous
from smalti.priors.machine import Machine, NativeStepper, Unknown
from smalti.priors.plan import CachedStepper, Plan

from ..laws.test_priors import make

AVAILABLE = [variant for variant in VARIANTS if load(variant) is not None]
LAYOUTS = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.T.contiguous().T,
    "every other": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1].expand(len(x), -1),
    "with a gradient": lambda x: x.clone().requires_grad_(),
    "unaligned": lambda x: torch.frombuffer(bytearray(b"\0" + x.numpy().tobytes()), dtype=x.dtype, offset=1).view(
        x.shape
    ),
    "at an offset": lambda x: torch.cat([x[:1], x])[1:],
    "negative strides": lambda x: torch.from_numpy(x.numpy()[::-1].copy()[::-1].copy()),
}


@pytest.fixture(params=[*AVAILABLE, "off"])
def variant(request, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", request.param)
    return request.param


def refused(call):
    """Whether a call raised an error of Python's, which says something in one line if it is ours."""
    try:
        call()
    except SmaltiError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 300
        return True
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):  # PyTorch's own, of the plain form
        return True
    return False


# ------------------------------------------------------------------ nearest code


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nearest_code_of_any_layout(layout, variant):
    features, codebook, bias = torch.randn(20, 6), torch.randn(9, 6), torch.randn(9)
    expected = nearest_code_reference(LAYOUTS[layout](features).detach(), LAYOUTS[layout](codebook).detach(), bias)
    assert torch.equal(nearest_code(LAYOUTS[layout](features), LAYOUTS[layout](codebook), bias), expected)


@pytest.mark.parametrize(
    "shapes",
    [
        ((5, 0), (3, 0), (3,)),
        ((5, 4), (0, 4), (0,)),
        ((0, 0), (0, 0), (0,)),
        ((5, 4), (3, 5), (3,)),
        ((5, 4), (3, 4), (2,)),
        ((5, 4), (3, 4), (3, 1)),
        ((4,), (3, 4), (3,)),
        ((5, 4), (4,), (3,)),
        ((2, 5, 4), (3, 4), (3,)),
        ((), (3, 4), (3,)),
    ],
)
def test_nearest_code_of_shapes_that_do_not_fit(shapes, variant):
    features, codebook, bias = (torch.randn(shape) for shape in shapes)
    with pytest.raises(SmaltiError, match=r"must be \(N, D\), \(K, D\) and \(K,\), D and K above 0"):
        nearest_code(features, codebook, bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.complex64])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_nearest_code_of_other_types(dtype, which, variant):
    arguments = [torch.randn(5, 4), torch.randn(3, 4), torch.randn(3)]
    arguments[which] = arguments[which].to(dtype)
    assert refused(lambda: nearest_code(*arguments))
    if dtype.is_floating_point:
        alike = [argument.to(dtype) for argument in arguments]
        assert torch.equal(nearest_code(*alike), nearest_code_reference(*alike))


def test_nearest_code_of_no_rows_and_of_meta_tensors(variant):
    assert nearest_code(torch.empty(0, 4), torch.randn(3, 4)).shape == (0,)
    meta = nearest_code(torch.empty(5, 4, device="meta"), torch.empty(3, 4, device="meta"))
    assert meta.is_meta and meta.shape == (5,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e38, 1e-45])
@pytest.mark.parametrize("where", ["a code vector", "all code vectors", "a feature", "all features", "a bias"])
@pytest.mark.parametrize("size", [3, 37, 100])
def test_nearest_code_of_values_that_are_no_numbers_or_huge(value, where, size, variant):
    torch.manual_seed(0)
    features, codebook = torch.randn(30, 8), torch.randn(size, 8)
    {"a code vector": codebook[size // 2], "all code vectors": codebook[:, 3], "a feature": features[7],
     "all features": features[:, 2], "a bias": torch.empty(1)}[where].fill_(value)  # fmt: skip
    bias = codebook.square().sum(1) / -2
    if where == "a bias":
        bias[size // 2] = value
    found = nearest_code(features, codebook, bias)
    assert int(found.min()) >= 0 and int(found.max()) < size
    scores = torch.addmm(bias, features, codebook.T)
    sure = scores.isfinite().all(1) | (scores.isnan() | scores.isinf()).all(1)
    assert torch.equal(found[sure], nearest_code_reference(features, codebook, bias)[sure])
    if value != value:  # a code vector that is not a number is nobody's
        assert torch.equal(found, nearest_code_reference(features, codebook, bias))


# ------------------------------------------------------------------ Gumbel-Softmax


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("shapes", "temperature"),
    [
        (((5, 70), (3, 4)), 1.0),
        (((5, 3), (70, 4)), 1.0),
        (((5, 0), (0, 4)), 1.0),
        (((5,), (5, 4)), 1.0),
        (((5, 3), (3,)), 1.0),
        (((2, 5, 3), (3, 4)), 1.0),
        (((5, 3), (3, 4)), 0.0),
        (((5, 3), (3, 4)), -1.0),
        (((5, 3), (3, 4)), float("nan")),
    ],
)
def test_gumbel_latents_that_do_not_fit(shapes, temperature, hard, variant):
    logits, codebook = (torch.randn(shape) for shape in shapes)
    with pytest.raises(SmaltiError, match=r"logits and codebook must be \(N, K\)|temperature must be positive"):
        gumbel_latents(logits, codebook, temperature, hard=hard, seed=0)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 1, 1), (5, 3, 0), (1, 1, 1)])
def test_gumbel_latents_of_next_to_nothing(shape, hard, variant):
    rows, size, dim = shape
    logits, codebook = torch.randn(rows, size, requires_grad=True), torch.randn(size, dim, requires_grad=True)
    latents, kl, codes = gumbel_latents(logits, codebook, 1.0, hard=hard, seed=0)
    (latents.sum() + kl.sum()).backward()
    assert latents.shape == (rows, dim) and kl.shape == codes.shape == (rows,)
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.shape == (rows, size)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_gumbel_latents_of_values_that_are_no_numbers(value, hard, variant):
    logits, codebook = torch.randn(9, 40), torch.randn(40, 5)
    logits[3], logits[5, 7] = value, value
    _, _, codes = gumbel_latents(logits.requires_grad_(), codebook, 0.5, hard=hard, seed=0)
    assert int(codes.min()) >= 0 and int(codes.max()) < 40


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gumbel_latents_of_any_layout(layout, variant):
    change, logits, codebook = LAYOUTS[layout], torch.randn(7, 6), torch.randn(6, 3)
    found = gumbel_latents(change(logits), change(codebook), 1.0, hard=False, seed=3)
    plain = gumbel_latents(change(logits).detach().clone(), change(codebook).detach().clone(), 1.0, hard=False, seed=3)
    alike = slice(1, None) if layout == "unaligned" else slice(None)  # by PyTorch, whose noise is another
    assert all(map(torch.allclose, found[alike], plain[alike]))


@pytest.mark.parametrize("seed", [-1, 1 << 63, 1.5, None])
def test_seeds_that_are_none(seed, variant):
    logits, codebook = torch.randn(3, 4), torch.randn(4, 2)
    fine = seed == -1 or (variant == "off" and seed == 1 << 63)  # PyTorch's generators take more
    assert fine or refused(lambda: gumbel_latents(logits, codebook, 1.0, hard=False, seed=seed))
    assert fine or refused(lambda: seeded_gumbel(logits, seed))


# ------------------------------------------------------------------ entropy coding


@pytest.mark.parametrize(
    ("codes", "shapes"),
    [
        (np.zeros(25, np.int32), [(1, 5, 5)]),
        (np.zeros(25, np.uint8), [(1, 5, 5)]),
        (np.zeros(24, np.int64), [(1, 5, 5)]),
        (np.zeros(25, np.int64), [(1, 50, 50)]),
        (np.zeros(25, ">i8"), [(1, 5, 5)]),
        (np.zeros((5, 5), np.int64), [(1, 5, 5)]),
        (np.zeros(50, np.int64)[::2], [(1, 5, 5)]),
        (np.zeros(25, np.int64), [(1, 5, 5), (-1, 5, 5), (1, 5, 5)]),
        (np.zeros(0, np.int64), [(0, 5, 5)]),
        (np.zeros(25), [(1, 5, 5)]),
    ],
)
@pytest.mark.parametrize("reading", [False, True])
def test_codes_that_do_not_fit_their_shapes(codes, shapes, reading, variant):
    with pytest.raises(SmaltiError):
        code_adaptively(StreamReader(bytes(400)) if reading else StreamWriter(), codes, shapes, 37)


@pytest.mark.parametrize("size", [-1, 0, (1 << 32) + 1])
def test_codebooks_that_there_are_not(size, variant):
    if variant != "off":
        assert refused(lambda: code_adaptively(StreamWriter(), np.zeros(25, np.int64), [(1, 5, 5)], size))


@pytest.mark.parametrize("stream", [b"", bytes(4), b"\xff" * 400, bytes(range(200))])
@pytest.mark.parametrize("size", [1, 2, 37, 1 << 32])
def test_streams_of_anything_give_codes_or_an_error(stream, size, variant):
    codes, hints = np.zeros(75, np.int64), np.full(75, -(1 << 60))
    for hint in (None, hints):
        if not refused(lambda hint=hint: code_adaptively(StreamReader(stream), codes, [(3, 5, 5)], size, hint)):
            assert codes.min() >= 0 and codes.max() < max(size, 1 << (size - 1).bit_length())


@pytest.mark.parametrize(
    ("logits", "codes"),
    [
        (torch.randn(5, 9), np.full(5, 9)),
        (torch.randn(5, 9), np.full(5, -1)),
        (torch.randn(5, 9), np.full(5, 1 << 62)),
        (torch.randn(5, 9), np.zeros(4, np.int64)),
        (torch.randn(5, 9), np.zeros(5, np.int32)),
        (torch.randn(5, 0), np.zeros(5, np.int64)),
        (torch.randn(9), np.zeros(9, np.int64)),
        (torch.zeros(5, 9, dtype=torch.int64), np.zeros(5, np.int64)),
    ],
)
def test_decisions_that_cannot_be(logits, codes, variant):
    with pytest.raises(SmaltiError, match="codes must|logits must"):
        decisions(logits, codes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("size", [1, 2, 9, 37])
@pytest.mark.filterwarnings("ignore:invalid value|overflow|divide by zero:RuntimeWarning")
def test_logits_that_are_no_numbers_give_some_codes(value, size, variant):
    logits = torch.randn(6, size)
    logits[2], logits[3, 0], logits[4, -1] = value, value, value
    decisions(logits, np.zeros(6, np.int64))
    if not refused(lambda: read_codes(logits, 5, StreamReader(bytes(range(100))))):
        codes = read_codes(logits, None, StreamReader(bytes(range(100))))
        assert codes.min() >= 0 and codes.max() < 1 << max(1, (size - 1).bit_length())
    assert refused(lambda: read_codes(logits[0], 5, StreamReader(bytes(40))))
    assert refused(lambda: read_codes(logits.long(), 5, StreamReader(bytes(40))))


# ------------------------------------------------------------------ priors, step by step


ODD_CODES = {
    "too large": lambda size: torch.full((2,), size),
    "negative": lambda size: torch.full((2,), -1),
    "one": lambda size: torch.zeros(1, dtype=torch.int64),
    "three": lambda size: torch.zeros(3, dtype=torch.int64),
    "a number": lambda size: torch.tensor(0),
    "a grid": lambda size: torch.zeros(2, 2, dtype=torch.int64),
    "fractions": lambda size: torch.zeros(2),
    "NaN": lambda size: torch.full((2,), float("nan")),
}


@pytest.mark.parametrize("codes", ODD_CODES)
def test_a_step_with_odd_codes(codes, variant):
    stepper = make("transformer").stepper(2)
    stepper.step(None)
    if variant != "off":
        with pytest.raises(SmaltiError, match="codes must"):
            stepper.step(ODD_CODES[codes](7))


WIDTH = 6


def odd_networks():
    """Networks as a user might write them: of embeddings (B, h, w, 6), to logits of 7 codes."""
    table, weight, wide, one = (
        torch.randn(7, WIDTH),
        torch.randn(7, WIDTH),
        torch.randn(WIDTH, WIDTH),
        torch.randn(1, WIDTH),
    )
    first, scale = torch.randn(1, WIDTH), torch.randn(WIDTH)
    odd = torch.randn(5, WIDTH)
    norms = {"weight": torch.ones(WIDTH), "bias": torch.zeros(WIDTH)}

    def network(middle):
        def run(codes):
            before = previous(F.embedding(codes, table), first.expand(2, -1))
            return F.linear(middle(before), weight)

        return run

    return {
        "plain": network(lambda x: F.relu(F.linear(x, wide))),
        "a sum that is broadcast": network(lambda x: x + F.linear(x, one)),
        "a sum with a constant": network(lambda x: x + 1.0),
        "a constant by channel": network(lambda x: x * scale),
        "a norm": network(lambda x: F.layer_norm(x, (WIDTH,), **norms)),
        "a table of another size": network(lambda x: x + by_position(x, torch.randn(3, WIDTH))),
        "one vector for all images": network(lambda x: x + by_image(x, first)),
        "attention of too many heads": network(lambda x: attend(F.linear(x, torch.randn(20, WIDTH)), 3, 2)),
        "a first of another width": lambda codes: F.linear(previous(F.embedding(codes, table), one[:, :2]), weight),
        "a gate of odd channels": network(lambda x: F.linear(gate(F.linear(x, odd)), torch.randn(6, 3))),
        "a weight of another width": network(lambda x: F.linear(x, torch.randn(6, 5))),
        "no channels": network(lambda x: F.linear(F.linear(x, torch.empty(0, WIDTH)), torch.empty(WIDTH, 0))),
    }


@pytest.mark.parametrize("name", odd_networks())
def test_an_odd_network_is_run_as_pytorch_runs_it_or_not_at_all(name, variant):
    torch.manual_seed(0)
    network, native = odd_networks()[name], load(variant) if variant != "off" else None
    codes = torch.randint(0, 7, (12, 2))

    def logits(stepper):
        return torch.stack([stepper.step(codes[place - 1] if place else None) for place in range(12)])

    if native is None:
        return
    try:
        stepper = NativeStepper(Machine(native, Plan(network, 2, (3, 4)), {}))
    except (
        Unknown,
        SmaltiError,
        RuntimeError,
        TypeError,
        AttributeError,
    ):  # PyTorch's, or its word
        return
    torch.testing.assert_close(logits(stepper), logits(CachedStepper(Plan(network, 2, (3, 4)))), rtol=1e-4, atol=1e-4)
