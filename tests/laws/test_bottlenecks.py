"""Laws that every bottleneck obeys; a member that is not in MEMBERS fails the last test."""

import copy
import math

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.models.bottlenecks import BOTTLENECKS, DiscreteBottleneck
from smalti.schedules import cosine

K, D, SIDE = 24, 6, 4

MEMBERS = {
    "identity": {"kind": "identity", "channels": D},
    "gaussian": {"kind": "gaussian", "channels": D},
    "vq ema": {"kind": "vector_quantizer", "codebook_size": K, "code_dim": D},
    "vq gradient": {"kind": "vector_quantizer", "codebook_size": K, "code_dim": D, "learning": "gradient"},
    "vq normalized": {"kind": "vector_quantizer", "codebook_size": K, "code_dim": D, "normalize": True},
    "gumbel distance": {"kind": "gumbel_softmax", "codebook_size": K, "code_dim": D},
    "gumbel hard": {"kind": "gumbel_softmax", "codebook_size": K, "code_dim": D, "hard": True},
    "gumbel convolution": {
        "kind": "gumbel_softmax", "codebook_size": K, "code_dim": D, "logits": "convolution", "in_channels": 10,
    },
}  # fmt: skip
DISCRETE = [name for name, spec in MEMBERS.items() if issubclass(BOTTLENECKS[spec["kind"]], DiscreteBottleneck)]


def make(name, trained=True):
    spec = dict(MEMBERS[name])
    torch.manual_seed(1)
    bottleneck = BOTTLENECKS[spec.pop("kind")](**spec)
    if trained:  # a few updates, so that codebooks are initialised and moving
        for step in range(3):
            bottleneck.anneal(step)
            bottleneck(features(bottleneck, 8, seed=step))
            bottleneck.update()
    return bottleneck


def features(bottleneck, batch, seed=0):
    return torch.randn(batch, bottleneck.in_channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=MEMBERS)
def bottleneck(request):
    return make(request.param)


@pytest.fixture(params=DISCRETE)
def discrete(request):
    return make(request.param)


@pytest.mark.parametrize("training", [True, False])
def test_output_has_the_stated_shapes_and_types(bottleneck, training):
    out = bottleneck.train(training)(features(bottleneck, 3))
    assert out.latents.shape == (3, bottleneck.out_channels, SIDE, SIDE)
    assert out.latents.dtype == torch.float32
    assert out.kl.shape == (3,)
    assert all(penalty.shape == () for penalty in out.penalties.values())
    if isinstance(bottleneck, DiscreteBottleneck):
        assert out.codes.shape == (3, *bottleneck.grid_shape(SIDE, SIDE))
        assert out.codes.dtype == torch.int64
        assert out.codes.min() >= 0 and out.codes.max() < K
    else:
        assert out.codes is None


def test_eval_mode_is_a_function_of_the_features(bottleneck):
    bottleneck.eval()
    inputs = features(bottleneck, 3)
    first, second = bottleneck(inputs), bottleneck(inputs)
    assert torch.equal(first.latents, second.latents)


def test_eval_mode_changes_no_state(bottleneck):
    before = copy.deepcopy(bottleneck.eval().state_dict())
    bottleneck(features(bottleneck, 3))
    bottleneck.update()
    assert all(torch.equal(before[name], value) for name, value in bottleneck.state_dict().items())


def test_kl_is_not_negative(bottleneck):
    assert (bottleneck.eval()(features(bottleneck, 5)).kl >= -1e-5).all()


def test_repeating_the_batch_leaves_kl_and_penalties_unchanged(bottleneck):
    bottleneck.eval()
    inputs = features(bottleneck, 4)
    once, thrice = bottleneck(inputs), bottleneck(inputs.repeat(3, 1, 1, 1))
    torch.testing.assert_close(once.kl.mean(), thrice.kl.mean())
    for name, penalty in once.penalties.items():
        torch.testing.assert_close(penalty, thrice.penalties[name])


def test_two_images_together_equal_two_alone(bottleneck):
    bottleneck.eval()
    inputs = features(bottleneck, 2)
    together = bottleneck(inputs)
    for index in range(2):
        alone = bottleneck(inputs[index : index + 1])
        torch.testing.assert_close(alone.latents[0], together.latents[index])
        torch.testing.assert_close(alone.kl[0], together.kl[index])
        if together.codes is not None:
            assert torch.equal(alone.codes[0], together.codes[index])


def test_gradient_reaches_the_features(bottleneck):
    inputs = features(bottleneck, 2).requires_grad_()
    bottleneck.train()(inputs).latents.square().sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0


def test_autocast_changes_nothing(bottleneck):
    bottleneck.eval()
    inputs = features(bottleneck, 4)
    plain = bottleneck(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = bottleneck(inputs)
    assert torch.equal(plain.latents, cast.latents)
    if plain.codes is not None:
        assert torch.equal(plain.codes, cast.codes)


def test_state_dict_round_trip(bottleneck):
    spec_name = next(name for name in MEMBERS if same_kind(name, bottleneck))
    other = make(spec_name, trained=False)
    other.load_state_dict(bottleneck.state_dict())
    inputs = features(bottleneck, 2)
    assert torch.equal(bottleneck.eval()(inputs).latents, other.eval()(inputs).latents)


def same_kind(name, bottleneck):
    other = make(name, trained=False)
    ours = {key: value.shape for key, value in bottleneck.state_dict().items()}
    theirs = {key: value.shape for key, value in other.state_dict().items()}
    flags = ("hard", "normalize")
    return (
        type(other) is type(bottleneck)
        and ours == theirs
        and all(getattr(other, flag, None) == getattr(bottleneck, flag, None) for flag in flags)
    )


def test_anneal_is_a_function_of_the_step(bottleneck):
    assert bottleneck.anneal(7) == bottleneck.anneal(7)


def test_wrong_number_of_channels_is_an_error_that_states_both_shapes(bottleneck):
    with pytest.raises(SmaltiError, match=rf"C={bottleneck.in_channels}.*\(2, 3, 4, 4\)"):
        bottleneck(torch.zeros(2, 3, 4, 4))


def test_posterior_sample_of_members_with_a_prior(bottleneck):
    if not bottleneck.has_prior:
        with pytest.raises(SmaltiError, match="no ELBO"):
            bottleneck.sample(features(bottleneck, 1))
        return
    sample = bottleneck.eval().sample(features(bottleneck, 3))
    assert sample.latents.shape == (3, bottleneck.out_channels, SIDE, SIDE)
    assert sample.log_ratio.shape == (3,)


def test_mean_log_ratio_is_minus_kl(bottleneck):
    if not bottleneck.has_prior:
        return
    bottleneck.eval()
    inputs = features(bottleneck, 1)
    ratios = bottleneck.sample(inputs.expand(4000, -1, -1, -1)).log_ratio
    error = ratios.std() / 4000**0.5
    assert (ratios.mean() + bottleneck(inputs).kl[0]).abs() < 5 * error + 1e-3


# ------------------------------------------------------------------ discrete members


def test_encode_equals_forward_codes_in_eval_mode(discrete):
    inputs = features(discrete, 3)
    codes = discrete.eval()(inputs).codes
    assert torch.equal(discrete.encode(inputs), codes)
    assert torch.equal(discrete.train().encode(inputs), codes)


def test_decode_of_encode_equals_forward_latents(discrete):
    inputs = features(discrete, 3)
    assert torch.equal(discrete.eval()(inputs).latents, discrete.decode(discrete.encode(inputs)))


def test_encode_in_training_mode_draws_no_noise_and_keeps_no_statistics(discrete):
    discrete.train()
    state = torch.random.get_rng_state()
    inputs = features(discrete, 3)
    before = copy.deepcopy(discrete.state_dict())
    assert torch.equal(discrete.encode(inputs), discrete.encode(inputs))
    discrete.update()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in discrete.state_dict().items())


def test_every_code_decodes_and_encodes_to_something_in_range(discrete):
    codes = torch.arange(K).view(1, 4, K // 4)
    assert discrete.decode(codes).shape == (1, discrete.out_channels, 4, K // 4)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 2, 2), K), rf"\[0, {K}\).*\[{K}, {K}\]"),
        (torch.full((1, 2, 2), -1), r"\[-1, -1\]"),
        (torch.zeros(2, 2, dtype=torch.int64), r"\(B, h, w\), not \(2, 2\)"),
        (torch.zeros(1, 2, 2), "integers, not torch.float32"),
    ],
)
def test_bad_codes_are_one_line_errors(discrete, codes, message):
    with pytest.raises(SmaltiError, match=message) as error:
        discrete.decode(codes)
    assert "\n" not in str(error.value)


def test_codebook_is_learnt(discrete):
    """Every member moves its codebook, by gradient or by averages (a peer's never got a gradient)."""
    inputs = features(discrete, 8, seed=9)
    out = discrete.train()(inputs)
    parameters = dict(discrete.named_parameters())
    if "codebook.vectors" in parameters:
        (out.latents.square().mean() + sum(out.penalties.values())).backward()
        assert parameters["codebook.vectors"].grad.abs().sum() > 0
    else:
        before = discrete.codebook.vectors.clone()
        discrete.update()
        assert not torch.equal(before, discrete.codebook.vectors)


def test_kl_is_at_most_the_uniform_rate(discrete):
    assert (discrete.eval()(features(discrete, 4)).kl <= SIDE * SIDE * math.log(K) + 1e-3).all()


def test_every_public_member_is_under_the_laws():
    assert {spec["kind"] for spec in MEMBERS.values()} == set(BOTTLENECKS)
    known = set(all_subclasses(next(iter(BOTTLENECKS.values())).__mro__[1]))
    assert set(BOTTLENECKS.values()) == {cls for cls in known if not cls.__abstractmethods__}


def all_subclasses(cls):
    return {cls, *(sub for child in cls.__subclasses__() for sub in all_subclasses(child))}


def test_temperature_does_not_compound():
    schedule = cosine(1.0, 1 / 16, 100)
    bottleneck = BOTTLENECKS["gumbel_softmax"](codebook_size=4, code_dim=2, temperature=schedule)
    for step in (0, 50, 50, 50, 100):
        assert bottleneck.anneal(step)["temperature"] == schedule(step)
    assert bottleneck.temperature.item() == pytest.approx(1 / 16)
