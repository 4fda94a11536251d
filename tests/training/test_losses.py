import math

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.images.noise import corrupt
from smalti.images.preprocessing import Corruption
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
from smalti.models.likelihoods import LIKELIHOODS
from smalti.ops.counts import perplexity, usage
from smalti.training.experiment import LossConfig
from smalti.training.losses import autoencoder_loss, score_function_loss
from smalti.training.usage import CodeUsage

SYSTEMS = {
    "ae": {"kind": "identity", "channels": 4},
    "vae": {"kind": "gaussian", "channels": 4},
    "vqvae": {"kind": "vector_quantizer", "codebook_size": 16, "code_dim": 4, "learning": "gradient"},
    "dvae": {"kind": "categorical", "codebook_size": 16, "code_dim": 4},
}


def make(system):
    torch.manual_seed(0)
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    return Autoencoder(AutoencoderConfig(networks=networks, bottleneck=SYSTEMS[system]))


@pytest.mark.parametrize("system", SYSTEMS)
def test_loss_is_the_equation(system):
    model, images = make(system).eval(), torch.rand(3, 3, 8, 8)
    config = LossConfig(commitment_weight=0.3, codebook_weight=0.7)
    loss = autoencoder_loss(model, images, config, beta=6.6)
    terms = {name: value.item() for name, value in loss.terms.items()}
    expected = (terms["distortion_nats"] + 6.6 * terms["kl_nats"]) / (3 * 8 * 8)
    expected += 0.3 * terms.get("commitment", 0.0) + 0.7 * terms.get("codebook", 0.0)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_encoder_sees_the_noisy_image_and_the_likelihood_the_clean_one(system):
    model, images, noisy = make(system).eval(), torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    noisy.requires_grad_()
    loss = autoencoder_loss(model, images, LossConfig(), 1.0, noisy)
    expected = model.likelihood.nll(model(noisy).parameters, images).mean()
    torch.testing.assert_close(loss.terms["distortion_nats"], expected.detach())
    assert loss.terms["distortion_nats"] != autoencoder_loss(model, noisy, LossConfig(), 1.0).terms["distortion_nats"]
    plain, same = (autoencoder_loss(model, images, LossConfig(), 1.0, seen).total for seen in (None, images))
    assert plain == same


def test_a_model_that_changes_nothing_pays_for_the_noise_alone(monkeypatch):
    """The likelihood of the clean image around the noisy one, by the formula of a unit Gaussian."""
    model, images = make("ae").eval(), torch.rand(4, 3, 8, 8) * 0.6 + 0.2
    noisy = corrupt(images, Corruption(noise="gaussian", noise_level=0.05))
    likelihood = LIKELIHOODS.build({"kind": "gaussian", "scale": 1.0}, channels=3)
    monkeypatch.setattr(model, "likelihood", likelihood)
    bottleneck = model(images).bottleneck
    monkeypatch.setattr(model, "forward", lambda seen: (seen - 0.5, bottleneck))
    found = autoencoder_loss(model, images, LossConfig(), 1.0, noisy).terms["distortion_nats"].item()
    error = (noisy.double() - images.double()).numpy()
    expected = (0.5 * error**2).sum() / 4 + 192 * 0.5 * math.log(2 * math.pi)
    assert found == pytest.approx(expected, rel=1e-5) and (error**2).mean() == pytest.approx(0.05**2, rel=0.1)


def test_a_penalty_of_another_name_needs_a_weight(monkeypatch):
    model, images = make("ae").eval(), torch.rand(2, 3, 8, 8)
    forward = model.bottleneck._forward
    spread = lambda features: forward(features)._replace(penalties={"spread": features.square().mean()})  # noqa: E731
    without = autoencoder_loss(model, images, LossConfig(), 0).total
    monkeypatch.setattr(model.bottleneck, "_forward", spread)
    loss = autoencoder_loss(model, images, LossConfig(penalty_weights={"spread": 0.5}), 0)
    torch.testing.assert_close(loss.total, without + 0.5 * loss.terms["spread"])
    with pytest.raises(SmaltiError, match="the penalty 'spread' has no weight"):
        autoencoder_loss(model, images, LossConfig(), 0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_repeating_the_batch_leaves_every_term_unchanged(system):
    model, images = make(system).eval(), torch.rand(2, 3, 8, 8)
    once = autoencoder_loss(model, images, LossConfig(), 1.0).terms
    often = autoencoder_loss(model, images.repeat(8, 1, 1, 1), LossConfig(), 1.0).terms
    for name, value in once.items():
        torch.testing.assert_close(value, often[name], rtol=1e-4, atol=1e-4)


def test_beta_weighs_the_kl():
    model, images = make("vae").eval(), torch.rand(2, 3, 8, 8)
    totals = [autoencoder_loss(model, images, LossConfig(), beta) for beta in (0.0, 2.0)]
    kl = totals[0].terms["kl_nats"].item() / 192
    assert totals[1].total.item() - totals[0].total.item() == pytest.approx(2.0 * kl, rel=1e-4)


def test_weight_of_the_commitment_scales_the_encoders_gradient_only():
    grads = {}
    for weight in (0.0, 1.0):
        model = make("vqvae")
        model.bottleneck.codebook.started = True  # k-means would put a code on every one of so few features
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        loss = autoencoder_loss(model, images, LossConfig(commitment_weight=weight), 1.0)
        loss.total.backward()
        grads[weight] = (model.bottleneck.codebook.vectors.grad.clone(), model.encoder[0].weight.grad.clone())
    torch.testing.assert_close(grads[0.0][0], grads[1.0][0])
    assert not torch.equal(grads[0.0][1], grads[1.0][1])


# ------------------------------------------------------------------ usage


def test_usage_and_perplexity_by_hand():
    counts = torch.tensor([2, 2, 0, 0])
    assert usage(counts) == 0.5
    assert perplexity(counts) == pytest.approx(2.0)
    assert perplexity(torch.tensor([1, 1, 1, 1])) == pytest.approx(4.0)


def test_more_codes_than_can_be_counted_are_refused_in_one_line():
    with pytest.raises(SmaltiError, match="at most 268,435,456 codes, not 4,000,000,000: give a smaller codebook"):
        CodeUsage(4 * 10**9)


def test_alarm_waits_out_the_start(monkeypatch):
    monkeypatch.setattr("smalti.training.usage.GRACE_WINDOWS", 3)
    watch, few = CodeUsage(4), torch.tensor([[128, 0, 0, 0]])
    assert [watch.observe(few, int(few.sum())) is None for _ in range(4)] == [True, True, True, False]


def test_alarm_rings_once_per_fall_and_advises(monkeypatch):
    monkeypatch.setattr("smalti.training.usage.GRACE_WINDOWS", 0)
    watch = CodeUsage(4)  # a window of 128 codes
    few, all_codes = torch.tensor([[64, 0, 0, 0]]), torch.tensor([[16, 16, 16, 16]])
    assert watch.observe(few, int(few.sum())) is None  # half a window
    assert watch.report() == {}
    alarm = watch.observe(few, int(few.sum()))
    assert "25% of 4 codes" in alarm and "remedies" in alarm
    assert [watch.observe(few, int(few.sum())) for _ in range(4)] == [None] * 4
    assert [watch.observe(all_codes, int(all_codes.sum())) for _ in range(4)] == [None] * 4
    assert watch.report() == {"usage": 1.0, "perplexity": pytest.approx(4.0)}
    assert watch.observe(few, int(few.sum())) is None and watch.observe(few, int(few.sum())) is not None


def test_window_does_not_depend_on_the_batch_size():
    codes = torch.randint(0, 8, (512,), generator=torch.Generator().manual_seed(0))
    whole, parts = CodeUsage(8), CodeUsage(8)
    for part in codes.split(256):
        whole.observe(torch.bincount(part, minlength=8)[None], 256)
    for part in codes.split(16):
        parts.observe(torch.bincount(part, minlength=8)[None], 16)
    assert whole.report() == parts.report()


def test_reinforce_adds_nothing_to_the_value_and_its_score_to_the_gradient():
    torch.manual_seed(0)
    bottleneck = {"kind": "categorical", "codebook_size": 6, "code_dim": 3, "estimator": "reinforce"}
    networks = {"kind": "residual", "width": 8, "depth": 1, "convolutions": 2}
    model = Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck)).train()
    images = torch.rand(3, 3, 8, 8)
    loss = autoencoder_loss(model, images, LossConfig(), 0.0)
    assert loss.total.item() == pytest.approx(loss.terms["distortion_nats"].item() / 192, rel=1e-5)
    loss.total.backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0  # by no other way than the score


def test_score_function_loss_by_hand():
    distortion, log_prob = torch.tensor([3.0, 1.0, 2.0]), torch.zeros(3, requires_grad=True)
    score_function_loss(distortion, log_prob).backward()
    torch.testing.assert_close(log_prob.grad, torch.tensor([3 - 1.5, 1 - 2.5, 2 - 2.0]) / 3)
