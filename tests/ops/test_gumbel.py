"""The fused Gumbel-Softmax bottleneck against plain autograd with the same noise, and its noise against its law."""

import math

import pytest
import torch

from smalti.ops.gumbel import gumbel_latents
from smalti.ops.gumbel_noise import seeded_gumbel
from smalti.ops.native import VARIANTS, load

AVAILABLE = [variant for variant in VARIANTS if load(variant) is not None]


@pytest.fixture(params=[*AVAILABLE, "off"])
def variant(request, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", request.param)
    return request.param


def plain(logits, codebook, temperature, hard, noise):
    noisy = logits + noise
    weights = (noisy / temperature).softmax(1)
    if hard:
        one_hot = torch.nn.functional.one_hot(noisy.argmax(1), logits.shape[1]).to(weights)
        weights = one_hot + weights - weights.detach()
    log_q = logits.log_softmax(1)
    return weights @ codebook, (log_q.exp() * (log_q + math.log(logits.shape[1]))).sum(1)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize(("rows", "size", "dim"), [(1, 2, 1), (7, 5, 3), (30, 33, 16), (100, 600, 20), (13, 64, 130)])
def test_values_and_gradients_are_those_of_autograd(variant, hard, temperature, rows, size, dim):
    torch.manual_seed(0)
    logits, codebook = (3 * torch.randn(rows, size)).requires_grad_(), torch.randn(size, dim).requires_grad_()
    up, up_kl = torch.randn(rows, dim), torch.randn(rows)
    latents, kl, codes = gumbel_latents(logits, codebook, temperature, hard=hard, seed=11)
    (latents * up).sum().add((kl * up_kl).sum()).backward()
    found = [latents.detach(), kl.detach(), logits.grad, codebook.grad]

    logits.grad = codebook.grad = None
    noise = seeded_gumbel(logits.detach(), 11)
    expected, expected_kl = plain(logits, codebook, temperature, hard, noise)
    (expected * up).sum().add((expected_kl * up_kl).sum()).backward()
    wanted = [expected.detach(), expected_kl.detach(), logits.grad, codebook.grad]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)
    assert torch.equal(codes, logits.detach().argmax(1))


@pytest.mark.parametrize("hard", [False, True])
def test_the_same_call_gives_the_same_bits(variant, hard):
    """On several threads, which finish in another order each time."""
    torch.manual_seed(0)
    logits, codebook = torch.randn(900, 64, requires_grad=True), torch.randn(64, 24, requires_grad=True)
    up, threads = torch.randn(900, 24), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = []
        for _ in range(20):
            latents, kl, _ = gumbel_latents(logits, codebook, 0.7, hard=hard, seed=3)
            found.append(torch.autograd.grad((latents * up).sum() + kl.sum(), [logits, codebook]))
    finally:
        torch.set_num_threads(threads)
    for gradients in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0], strict=True))


def test_noise_is_standard_gumbel(variant):
    noise = seeded_gumbel(torch.empty(400, 1000), 5)
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)
    for value in (-1.0, 0.0, 1.0, 3.0):  # P(g < x) = exp(-exp(-x))
        share = (noise < value).double().mean().item()
        assert share == pytest.approx(math.exp(-math.exp(-value)), abs=0.004)


def test_noise_has_no_visible_structure(variant):
    """Neither along rows nor along codes nor between seeds; a chi-square of the arg max over uniform logits."""
    noise = seeded_gumbel(torch.empty(3000, 64), 5).double()
    centred = noise - noise.mean()
    scale = centred.square().mean()
    for shifted in (centred[:, 1:] * centred[:, :-1], centred[1:] * centred[:-1], centred[2:, 2:] * centred[:-2, :-2]):
        assert (shifted.mean() / scale).abs() < 4.5 / shifted.numel() ** 0.5
    other = seeded_gumbel(torch.empty(3000, 64), 6).double()
    assert torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1].abs() < 0.01
    counts = noise.argmax(1).bincount(minlength=64).double()
    assert ((counts - 3000 / 64).square() / (3000 / 64)).sum() < 115  # 63 degrees of freedom, p about 1e-4


def test_a_seed_is_a_function_of_row_and_code(variant):
    few, many = seeded_gumbel(torch.empty(3, 20), 9), seeded_gumbel(torch.empty(3, 20), 9)
    assert torch.equal(few, many)
    assert not torch.equal(few, seeded_gumbel(torch.empty(3, 20), 10))


@pytest.mark.parametrize("hard", [False, True])
def test_extreme_logits_stay_finite(variant, hard):
    logits = torch.tensor([[300.0, -300.0, 0.0], [1e4, 1e4, -1e4]]).requires_grad_()
    codebook = torch.randn(3, 4).requires_grad_()
    latents, kl, _ = gumbel_latents(logits, codebook, 0.1, hard=hard, seed=0)
    (latents.sum() + kl.sum()).backward()
    for value in (latents, kl, logits.grad, codebook.grad):
        assert value.isfinite().all()


def test_it_is_a_proper_operator():
    """Schema, fake implementation, autograd registration, tracing with symbolic shapes."""
    logits, codebook = torch.randn(4, 6, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    torch.library.opcheck(
        torch.ops.smalti.gumbel_softmax.default,
        (logits, codebook, 0.5, False, 3),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
