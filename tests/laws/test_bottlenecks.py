"""Laws that every bottleneck obeys; a member that is not in MEMBERS of `members.py` fails the last test."""

import copy
import inspect
import sys
from contextlib import nullcontext
from typing import Literal, get_args, get_origin

import pytest
import torch

from laws.members import DISCRETE, MEMBERS, SIDE, features, make
from smalti.errors import SmaltiError
from smalti.models.bottlenecks import BOTTLENECKS, Bottleneck, DiscreteBottleneck, GaussianPosterior
from smalti.models.bottlenecks.codebook import Codebook
from smalti.models.bottlenecks.estimators import CATEGORICAL, NEAREST
from smalti.schedules import cosine
from smalti.training.usage import CodeUsage


@pytest.fixture(params=MEMBERS)
def bottleneck(request):
    return make(request.param)


@pytest.fixture(params=DISCRETE)
def discrete_name(request):
    return request.param


@pytest.fixture
def discrete(discrete_name):
    return make(discrete_name)


def test_a_training_step_asks_the_device_for_nothing(bottleneck, monkeypatch):
    """Meta tensors have no values: whatever would wait for a GPU (`item`, `if tensor:`, `nonzero`) raises on them."""
    monkeypatch.setattr("smalti.models.bottlenecks.base.fp32_island", lambda _: nullcontext())  # no autocast for meta
    bottleneck = copy.deepcopy(bottleneck).to("meta")
    out = bottleneck(torch.empty(8, bottleneck.in_channels, SIDE, SIDE, device="meta", requires_grad=True))
    (out.latents.sum() + out.kl.sum() + sum(out.penalties.values())).backward()
    bottleneck.update()
    if isinstance(bottleneck, DiscreteBottleneck):
        counts = bottleneck.histogram(out.codes)
        assert counts.shape == (bottleneck.num_codebooks, bottleneck.codebook_size)
        CodeUsage(bottleneck.codebook_size, bottleneck.num_codebooks).observe(counts, 1)


@pytest.mark.parametrize("training", [True, False])
def test_output_has_the_stated_shapes_and_types(bottleneck, training):
    out = bottleneck.train(training)(features(bottleneck, 3))
    assert out.latents.shape == (3, bottleneck.out_channels, SIDE, SIDE)
    assert out.latents.dtype == torch.float32
    assert out.kl.shape == (3,)
    assert bottleneck.how_gradients_pass
    assert all(penalty.shape == () for penalty in out.penalties.values())
    if isinstance(bottleneck, DiscreteBottleneck):
        assert out.codes.shape == (3, *bottleneck.grid_shape(SIDE, SIDE))
        assert out.codes.dtype == torch.int64
        assert out.codes.min() >= 0 and out.codes.max() < bottleneck.codebook_size
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
    out = bottleneck.train()(inputs)
    (out.latents.square().sum() if out.log_prob is None else out.log_prob.sum()).backward()
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
    flags = ("estimator", "compare", "variant", "drop", "spherical", "by_distance", "codebook_size")
    return (
        type(other) is type(bottleneck)
        and ours == theirs
        and all(getattr(other, flag, None) == getattr(bottleneck, flag, None) for flag in flags)
    )


def test_anneal_is_a_function_of_the_step(bottleneck):
    assert bottleneck.anneal(7, 9) == bottleneck.anneal(7, 9)


def test_wrong_number_of_channels_is_an_error_that_states_both_shapes(bottleneck):
    with pytest.raises(SmaltiError, match=rf"C={bottleneck.in_channels}.*\(2, 3, 4, 4\)"):
        bottleneck(torch.zeros(2, 3, 4, 4))


def test_posterior_sample_of_members_with_a_prior(bottleneck):
    if not bottleneck.has_prior:
        with pytest.raises(SmaltiError, match="no ELBO"):
            bottleneck.sample_posterior(features(bottleneck, 1))
        return
    sample = bottleneck.eval().sample_posterior(features(bottleneck, 3))
    assert sample.latents.shape == (3, bottleneck.out_channels, SIDE, SIDE)
    assert sample.log_ratio.shape == (3,)


def test_mean_log_ratio_is_minus_kl(bottleneck):
    if not bottleneck.has_prior:
        return
    bottleneck.eval()
    inputs = features(bottleneck, 1)
    ratios = bottleneck.sample_posterior(inputs.expand(4000, -1, -1, -1)).log_ratio
    error = ratios.std() / 4000**0.5
    assert (ratios.mean() + bottleneck(inputs).kl[0]).abs() < 5 * error + 1e-3


def test_an_interpolation_starts_and_ends_at_the_images_bit_for_bit(bottleneck):
    start, end = features(bottleneck.eval(), 2)
    latents = bottleneck.interpolate(start, end, torch.linspace(0, 1, 7))
    assert latents.shape == (7, bottleneck.out_channels, SIDE, SIDE)
    for share, of in ((0, start), (-1, end)):
        assert torch.equal(latents[share], bottleneck(of[None]).latents[0])
    same = bottleneck.interpolate(start, start, torch.linspace(0, 1, 3))
    torch.testing.assert_close(same, same[:1].expand_as(same))


def test_samples_have_the_stated_shapes_and_are_functions_of_the_seed(bottleneck):
    if not bottleneck.has_prior:
        return

    def sampled(seed):
        torch.manual_seed(seed)
        prior = bottleneck.sample_prior(5, SIDE, SIDE)
        return prior, *bottleneck.sample_posterior(features(bottleneck, 3))

    bottleneck.eval()
    prior, latents, _, codes = sampled(1)
    assert prior.shape == (5, bottleneck.out_channels, SIDE, SIDE)
    assert torch.equal(prior, sampled(1)[0]) and torch.equal(latents, sampled(1)[1])
    assert not torch.equal(prior, sampled(2)[0])
    assert torch.equal(latents, sampled(2)[1]) != bottleneck.random_posterior
    if isinstance(bottleneck, DiscreteBottleneck):
        assert torch.equal(bottleneck.decode(codes), latents)
        torch.manual_seed(1)
        assert torch.equal(bottleneck.decode(bottleneck.sample_codes(5, SIDE, SIDE)), prior)
    else:
        assert codes is None


def test_temperature_0_samples_what_is_most_likely(bottleneck):
    """The same for every seed; of q(z|x) the latents of the reconstruction. Without effect it is refused."""
    inputs = features(bottleneck.eval(), 2)
    for sample, active in (
        (lambda: bottleneck.sample_prior(3, SIDE, SIDE, 0.0), has_temperature(bottleneck)),
        (lambda: bottleneck.sample_posterior(inputs, 0.0).latents, bottleneck.random_posterior),
    ):
        if not bottleneck.has_prior or not active:
            with pytest.raises(SmaltiError, match=r"no p\(z\)|temperature 0.0 has no effect"):
                sample()
        else:
            first, second = sample(), sample()
            assert torch.equal(first, second)
    if bottleneck.has_prior and bottleneck.random_posterior:
        assert torch.equal(second, bottleneck(inputs).latents)
    with pytest.raises(SmaltiError, match="0 or more, not -1"):
        bottleneck.sample_prior(3, SIDE, SIDE, -1)


def has_temperature(bottleneck):
    """Whether p(z) is other than uniform."""
    return getattr(bottleneck, "prior_logits", None) is not None or isinstance(bottleneck, GaussianPosterior)


# ------------------------------------------------------------------ discrete members


def test_every_step_of_an_interpolation_is_the_latents_of_codes(discrete):
    start, end = features(discrete.eval(), 2)
    shares = torch.linspace(0, 1, 9)
    codes = discrete.encode(torch.lerp(start, end, shares.view(-1, 1, 1, 1)))
    assert torch.equal(discrete.interpolate(start, end, shares), discrete.decode(codes))
    new = (codes[1:] != codes[:-1]).flatten(1).any(1)
    assert new.sum() > 1, "the way is not one jump"


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
    size = discrete.codebook_size
    codes = torch.arange(size).view(1, 1, 1, size).expand(1, discrete.num_codebooks, 1, size)
    codes = codes.reshape(1, *discrete.grid_shape(1, size))
    latents = discrete.decode(codes)
    assert latents.shape == (1, discrete.out_channels, 1, size)
    if discrete.num_codebooks == 1:
        assert len(latents[0, :, 0].T.unique(dim=0)) == size


def test_bad_codes_are_one_line_errors(discrete):
    size, shape = discrete.codebook_size, (1, *discrete.grid_shape(2, 2))
    for codes, message in [
        (torch.full(shape, size), rf"\[0, {size}\).*\[{size}, {size}\]"),
        (torch.full(shape, -1), r"\[-1, -1\]"),
        (torch.zeros(2, dtype=torch.int64), r"\(B,.* h, w\), not \(2,\)"),
        (torch.zeros(shape), "integers, not torch.float32"),
    ]:
        with pytest.raises(SmaltiError, match=message) as error:
            discrete.decode(codes)
        assert "\n" not in str(error.value)


def test_histogram_counts_each_codebook(discrete):
    codes = discrete.encode(features(discrete, 3))
    counts = discrete.histogram(codes)
    assert counts.shape == (discrete.num_codebooks, discrete.codebook_size)
    assert (counts.sum(1) == 3 * SIDE * SIDE).all()
    first = codes if discrete.num_codebooks == 1 else codes[:, 0]
    assert torch.equal(counts[0], torch.bincount(first.flatten(), minlength=discrete.codebook_size))


def test_codebook_is_learnt(discrete):
    """Every member moves its codebook, by gradient or by averages (a peer's never got a gradient)."""
    out = discrete.train()(features(discrete, 8, seed=9).requires_grad_())
    codebooks = [module for module in discrete.modules() if isinstance(module, Codebook)]
    before = [codebook.vectors.clone() for codebook in codebooks]
    out.latents.square().mean().add(sum(out.penalties.values())).backward()
    discrete.update()
    for codebook, old in zip(codebooks, before, strict=True):
        learned = list(codebook.parameters())
        assert all(parameter.grad.abs().sum() > 0 for parameter in learned)
        assert learned or not torch.equal(old, codebook.vectors)


def test_kl_is_at_most_the_uniform_rate(discrete):
    kl = discrete.eval()(features(discrete, 4)).kl
    assert (kl <= discrete.uniform_kl(features(discrete, 4)) + 1e-3).all()


def test_at_a_rate_each_position_costs_its_bits(discrete_name):
    member = BOTTLENECKS[MEMBERS[discrete_name]["kind"]]
    for bits in range(2, 13):
        bottleneck = BOTTLENECKS.build({**MEMBERS[discrete_name], **member.at_rate(bits)})
        assert bottleneck.codebook_size**bottleneck.num_codebooks == 2**bits


def test_a_prefix_of_the_codes_decodes_where_it_is_said_to(discrete):
    codes = discrete.encode(features(discrete, 2))
    if discrete.prefix_decodable:
        parts = [discrete.decode(codes[:, :count]) for count in range(1, discrete.num_codebooks + 1)]
        assert {part.shape for part in parts} == {parts[-1].shape}
        assert torch.equal(parts[-1], discrete.decode(codes)) and not torch.equal(parts[0], parts[-1])
    elif discrete.num_codebooks > 1:
        with pytest.raises(SmaltiError, match="codes at each position, not 1"):
            discrete.decode(codes[:, :1])


def test_every_public_member_is_under_the_laws():
    assert {spec["kind"] for spec in MEMBERS.values()} == set(BOTTLENECKS)
    estimators = {(spec["kind"], spec["estimator"]) for spec in MEMBERS.values() if "estimator" in spec}
    wanted = {("categorical", name) for name in CATEGORICAL} | {("vector_quantizer", name) for name in NEAREST}
    assert estimators | {("vector_quantizer", "straight_through")} == wanted
    for kind in BOTTLENECKS:
        specs = [spec for spec in MEMBERS.values() if spec["kind"] == kind]
        for name, parameter in inspect.signature(BOTTLENECKS[kind], eval_str=True).parameters.items():
            if get_origin(parameter.annotation) is Literal:
                assert {spec.get(name, parameter.default) for spec in specs} == set(get_args(parameter.annotation))
    final = {cls for cls in all_subclasses(Bottleneck) if not cls.__abstractmethods__}
    ours = {cls for cls in final if cls.__module__.startswith("smalti.")}  # and copies that torch.export has made
    assert {cls for cls in ours if vars(sys.modules[cls.__module__])[cls.__name__] is cls} == set(BOTTLENECKS.values())


def all_subclasses(cls):
    return {cls, *(sub for child in cls.__subclasses__() for sub in all_subclasses(child))}


def test_temperature_does_not_compound():
    schedule = cosine(1.0, 1 / 16, 0.5)
    bottleneck = BOTTLENECKS["categorical"](codebook_size=4, code_dim=2, temperature=schedule)
    for step in (0, 50, 50, 50, 100):
        assert bottleneck.anneal(step, 200)["temperature"] == schedule(step, 200)
    assert bottleneck.temperature.item() == pytest.approx(1 / 16)
