import numpy as np
import pytest
import torch

import reference
from smalti.errors import SmaltiError
from smalti.models.bottlenecks import VectorQuantizer, straight_through
from smalti.models.bottlenecks.codebook import Codebook
from smalti.models.bottlenecks.vector import codebook_loss, commitment_loss
from smalti.ops.nearest import nearest_code


@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 2), (50, 3, 7), (300, 16, 64)])
def test_nearest_code_equals_the_numpy_reference(n, d, k):
    features, codebook = torch.randn(n, d), torch.randn(k, d)
    assert (
        nearest_code(features, codebook).tolist() == reference.nearest_code(features.numpy(), codebook.numpy()).tolist()
    )


def test_nearest_code_is_the_same_in_chunks(monkeypatch):
    features, codebook = torch.randn(100, 4), torch.randn(10, 4)
    whole = nearest_code(features, codebook)
    monkeypatch.setattr("smalti.ops.nearest.CHUNK_ELEMENTS", 35)
    assert torch.equal(nearest_code(features, codebook), whole)


def test_nearest_code_of_nothing_is_nothing():
    assert nearest_code(torch.zeros(0, 4), torch.randn(3, 4)).shape == (0,)


def test_ties_go_to_the_lowest_index():
    codebook = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert nearest_code(torch.tensor([[0.0, 5.0], [2.0, 0.0]]), codebook).tolist() == [0, 0]


def test_straight_through_has_the_value_of_hard_and_the_gradient_of_soft():
    soft = torch.randn(5, requires_grad=True)
    hard = soft.detach().round()
    result = straight_through(hard, soft)
    assert torch.allclose(result, hard)
    (result * torch.arange(5.0)).sum().backward()
    assert torch.equal(soft.grad, torch.arange(5.0))


def test_commitment_loss_leaves_the_codebook_alone():
    features, quantized = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    commitment_loss(features, quantized).backward()
    assert quantized.grad is None
    torch.testing.assert_close(features.grad, 2 * (features - quantized).detach() / 6)


def test_codebook_loss_leaves_the_encoder_alone():
    features, quantized = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    codebook_loss(features, quantized).backward()
    assert features.grad is None
    torch.testing.assert_close(quantized.grad, 2 * (quantized - features).detach() / 6)


def test_decoder_gradient_reaches_the_features_unchanged():
    bottleneck = VectorQuantizer(codebook_size=8, code_dim=4)
    features = torch.randn(2, 4, 3, 3, requires_grad=True)
    weights = torch.randn(2, 4, 3, 3)
    (bottleneck(features).latents * weights).sum().backward()
    torch.testing.assert_close(features.grad, weights)


def test_penalties_are_taken_before_the_straight_through_patch():
    """Computed after it, the commitment would be zero."""
    bottleneck = VectorQuantizer(codebook_size=2, code_dim=4)
    out = bottleneck(torch.randn(2, 4, 3, 3))
    assert out.penalties["commitment"] > 0


def test_ema_update_equals_the_numpy_reference():
    codebook = Codebook(5, 3, learning="ema", decay=0.9, restart_below=0.0)
    codebook.started = True
    share, sums = codebook.share.numpy().copy(), codebook.sums.numpy().copy()
    for seed in range(4):
        vectors = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed))
        codes = nearest_code(vectors, codebook.vectors)
        codebook.observe(vectors, codes)
        codebook.update()
        share, sums, means = reference.ema_step(share, sums, vectors.numpy(), codes.numpy(), 0.9)
        np.testing.assert_allclose(codebook.share.numpy(), share, rtol=1e-5)
        np.testing.assert_allclose(codebook.vectors.numpy(), means, rtol=1e-4, atol=1e-6)


def test_ema_does_not_depend_on_how_a_step_is_cut_into_batches():
    vectors = torch.randn(32, 3)
    whole, parts = (Codebook(4, 3, learning="ema", decay=0.9, restart_below=0.0) for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    codes = nearest_code(vectors, whole.vectors)
    whole.observe(vectors, codes)
    for start in (0, 8, 16, 24):
        parts.observe(vectors[start : start + 8], codes[start : start + 8])
    whole.update()
    parts.update()
    torch.testing.assert_close(whole.vectors, parts.vectors)


def test_codebook_starts_from_the_data():
    bottleneck = VectorQuantizer(codebook_size=4, code_dim=2)
    corners = torch.tensor([[9.0, 9.0], [9.0, -9.0], [-9.0, 9.0], [-9.0, -9.0]])
    features = corners[torch.arange(64) % 4].view(4, 16, 2).permute(0, 2, 1).reshape(4, 2, 4, 4)
    bottleneck(features + 0.01 * torch.randn_like(features))
    distances = torch.cdist(corners, bottleneck.codebook.vectors).min(1).values
    assert (distances < 0.2).sum() >= 2  # k-means from a random start may merge corners
    centre_of_two = torch.cdist(bottleneck.codebook.vectors, corners).min(1).values
    assert centre_of_two.max() < 9.1  # no code stays outside the data


def test_dead_codes_restart_from_recent_vectors():
    codebook = Codebook(8, 2, learning="ema", decay=0.5, restart_below=0.1)
    codebook.started = True
    vectors = torch.randn(64, 2) + 100
    restarted = 0.0
    for _ in range(20):
        codebook.observe(vectors, nearest_code(vectors, codebook.vectors))
        restarted += codebook.update()["restarted"]
    assert restarted >= 7
    assert (codebook.vectors > 90).all()


def test_restart_threshold_does_not_depend_on_the_batch_size():
    shares = []
    for repeat in (1, 16):
        torch.manual_seed(0)
        codebook = Codebook(4, 2, learning="ema", decay=0.5, restart_below=0.5)
        vectors = torch.randn(16, 2).repeat(repeat, 1)
        codes = nearest_code(vectors, codebook.vectors)
        codebook.observe(vectors, codes)
        codebook.update()
        shares.append(codebook.share)
    torch.testing.assert_close(shares[0], shares[1])


def test_without_restart_no_code_moves_that_is_not_used():
    codebook = Codebook(3, 2, learning="ema", decay=0.9, restart_below=0.0)
    before = codebook.vectors.clone()
    codebook.observe(torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64))
    codebook.update()
    torch.testing.assert_close(codebook.vectors[1:], before[1:])


def test_fewer_vectors_than_codes_still_initialise():
    bottleneck = VectorQuantizer(codebook_size=64, code_dim=2)
    assert bottleneck(torch.randn(1, 2, 2, 2)).latents.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": 1}, "at least 2, not 1"),
        ({"learning": "magic"}, "'ema', 'gradient' or 'simvq', not 'magic'"),
        ({"decay": 1.0}, "not 1.0"),
        ({"restart_below": -1.0}, "not .* -1.0"),
    ],
)
def test_bad_options_name_the_value(options, message):
    with pytest.raises(SmaltiError, match=message):
        VectorQuantizer(**{"codebook_size": 4, "code_dim": 2, **options})
