"""Laws of bottlenecks as layers of somebody else's network, in somebody else's training loop."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from laws.members import DISCRETE, MEMBERS, SIDE, features, make
from smalti.errors import SmaltiError
from smalti.models.bottlenecks import DiscreteBottleneck
from smalti.models.bottlenecks.codebook import PATIENCE, Codebook
from smalti.models.bottlenecks.grids import NOTHING

TYPES = [torch.float16, torch.bfloat16, torch.float64, torch.float32]
GRIDLESS = [name for name in MEMBERS if "prior_grid" not in MEMBERS[name]]
LEARNING = ["vq ema", "vq gradient", "vq simvq", "residual", "dvae distance"]  # the ways in which codebooks learn
TRAINED = {name: make(name) for name in MEMBERS}
FRESH = {name: make(name, trained=False) for name in MEMBERS}


@pytest.fixture(params=MEMBERS)
def layer(request):
    return copy.deepcopy(TRAINED[request.param])


@pytest.fixture(params=DISCRETE)
def discrete(request):
    return copy.deepcopy(TRAINED[request.param])


def codebooks(layer):
    return [module for module in layer.modules() if isinstance(module, Codebook)]


def state(layer):
    return {name: value.clone() for name, value in layer.state_dict().items()}


def same_state(layer, before):
    return all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def total(out):
    return out.latents.float().square().mean() + out.kl.mean() + sum(out.penalties.values())


def seeded(layer, *arguments, **options):
    torch.manual_seed(3)
    return layer(*arguments, **options)


# ------------------------------------------------------------------ types, layouts, masks


@given(
    name=st.sampled_from(sorted(MEMBERS)),
    module_type=st.sampled_from(TYPES),
    feature_type=st.sampled_from(TYPES),
    training=st.booleans(),
    autocast=st.booleans(),
    layout=st.sampled_from(["B C h w", "B h w C", "B C T", "B T C", "B C t h w", "B t h w C"]),
    batch=st.integers(0, 3),
    masked=st.sampled_from([None, 0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_a_layer_is_one_function_of_its_vectors(
    name, module_type, feature_type, training, autocast, layout, batch, masked, seed
):
    """Whatever the types, the layout and the mask, it is what the float32 layer makes of the vectors that are kept."""
    if name not in GRIDLESS:
        layout = "B C h w"
    plain = copy.deepcopy(TRAINED[name]).train(training)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, plain.in_channels, SIDE, SIDE, generator=generator).to(feature_type)
    grid = {1: (SIDE * SIDE,), 2: (SIDE, SIDE), 3: (2, SIDE // 2, SIDE)}[layout.count(" ") - 1]
    mask = None if masked is None else torch.rand(batch, SIDE, SIDE, generator=generator) < masked
    expected = seeded(copy.deepcopy(plain), values.float(), mask)
    assert expected.latents.dtype == expected.kl.dtype == torch.float32

    given_values, axis = values.reshape(*values.shape[:2], *grid), 1
    if layout.endswith("C"):
        given_values, axis = given_values.movedim(1, -1).contiguous(), -1
    leaf = given_values.clone().requires_grad_()
    layer = plain.to(module_type)
    kept = None if mask is None else mask.reshape(batch, *grid)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = seeded(layer, leaf, kept, channel_axis=axis)
    assert out.latents.dtype == feature_type
    got = out.latents.movedim(axis, 1).reshape(expected.latents.shape)
    if not training or axis == 1:  # noise of features follows the order in memory
        torch.testing.assert_close(got, expected.latents.to(feature_type))  # and so do the roundings of sums
    torch.testing.assert_close((out.kl, out.penalties), (expected.kl, expected.penalties))
    assert out.kl.isfinite().all() and all(value.isfinite() for value in out.penalties.values())
    assert out.latents.requires_grad or out.log_prob is not None
    if expected.codes is None:
        return
    assert torch.equal(out.codes.reshape(expected.codes.shape), expected.codes)
    assert out.codes.shape[-len(grid) :] == grid
    codes = layer.encode(given_values, kept, channel_axis=axis)
    if not training:
        assert torch.equal(codes, out.codes)
        decoded = layer.decode(codes, kept, channel_axis=axis)
        assert decoded.dtype == module_type
        assert torch.equal(decoded.float(), out.latents.to(module_type).float()) or module_type != feature_type


@pytest.mark.parametrize("training", [True, False])
def test_what_a_mask_leaves_out_changes_nothing(layer, training):
    layer.train(training)
    values, mask = features(layer, 3), torch.rand(3, SIDE, SIDE) < 0.6
    other = torch.where(mask[:, None], values, torch.tensor([math.nan, math.inf, 1e30, -5.0])).requires_grad_()
    twin = copy.deepcopy(layer)
    first, second = seeded(layer, values, mask), seeded(twin, other, mask)
    for one, two in zip(first, second, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, two)
    assert first.penalties == second.penalties
    (total(second) + (0 if second.log_prob is None else second.log_prob.sum())).backward()
    gone = (~mask)[:, None].expand_as(other)
    assert (other.grad[gone] == 0).all() and (
        second.latents.detach()[(~mask)[:, None].expand_as(first.latents)] == 0
    ).all()
    layer.update()
    twin.update()
    assert same_state(twin, layer.state_dict())
    if first.codes is not None:
        left_out = (~mask).view(3, *[1] * (first.codes.ndim - 3), SIDE, SIDE).expand_as(first.codes)
        assert (first.codes[left_out] == NOTHING).all() and (first.codes[~left_out] >= 0).all()
        counts = layer.histogram(first.codes)
        assert (counts.sum(1) == mask.sum()).all()
        with pytest.raises(SmaltiError, match="give decode the mask too"):
            layer.decode(first.codes)


def test_a_mask_keeps_what_the_kept_vectors_alone_give(layer):
    """Of whole images, so that per-image numbers can be compared."""
    layer.eval()
    values, mask = features(layer, 4), torch.tensor([True, False, True, True]).view(4, 1, 1).expand(4, SIDE, SIDE)
    kept, masked = layer(values[[0, 2, 3]]), layer(values, mask)
    assert torch.equal(masked.latents[[0, 2, 3]], kept.latents)
    torch.testing.assert_close(masked.kl[[0, 2, 3]], kept.kl)
    assert masked.kl[1] == 0
    for name, value in kept.penalties.items():
        torch.testing.assert_close(masked.penalties[name], value)


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((2, 5), 1, r"\(B, C=\d+, h, w\), not \(2, 5\)"),
        ((2, 5, 99), -1, r"\(B, T, C=\d+\), not"),
        ((2, 5, 5, 5), 0, r"channel_axis must lie in \[1, 3\]"),
        ((2, 5, 5, 5), 4, "or be -1 for the last, not 4"),
    ],
)
def test_odd_features_are_one_line_errors(layer, shape, axis, message):
    with pytest.raises(SmaltiError, match=message):
        layer(torch.zeros(shape), channel_axis=axis)
    with pytest.raises(SmaltiError, match=r"floating-point numbers, not torch\.int64"):
        layer(features(layer, 2).long())
    with pytest.raises(SmaltiError, match=r"bool of the shape \(2, 4, 4\), not torch.float32 \(2, 4, 4\)"):
        layer(features(layer, 2), torch.ones(2, SIDE, SIDE))


def test_nothing_goes_in_and_nothing_comes_out(layer):
    for shape in ((0, SIDE, SIDE), (2, 0, SIDE), (2, SIDE, 0)):
        if shape[0] and "prior_logits" in dict(layer.named_parameters()):
            continue  # a learned prior is of one grid
        before = state(layer)
        values = torch.zeros(shape[0], layer.in_channels, *shape[1:], requires_grad=True)
        out = layer.train()(values)
        assert out.latents.shape == (shape[0], layer.out_channels, *shape[1:]) and (out.kl == 0).all()
        assert all(value == 0 for value in out.penalties.values())
        total(out).nan_to_num().backward()
        layer.update()
        assert same_state(layer, before)
        if isinstance(layer, DiscreteBottleneck):
            assert out.codes.shape == (shape[0], *layer.grid_shape(*shape[1:])) == layer.encode(values).shape
            assert layer.decode(out.codes).shape == out.latents.shape
            assert layer.histogram(out.codes).sum() == 0


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.int32, torch.uint32, torch.uint64, torch.int8])
def test_codes_of_every_type_of_integers_decode(discrete, kind):
    codes = discrete.encode(features(discrete, 2)).clamp(max=min(127, discrete.codebook_size - 1))
    assert torch.equal(discrete.decode(codes.to(kind)), discrete.decode(codes))
    for none in (torch.bool, torch.complex64, torch.float16):
        with pytest.raises(SmaltiError, match="codes must be integers"):
            discrete.decode(codes.to(none))


# ------------------------------------------------------------------ gradients, and standing still


def test_eval_mode_keeps_the_gradient_and_the_values(layer):
    inputs = features(layer.eval(), 2)
    with torch.no_grad():
        plain = layer(inputs)
    leaf = inputs.clone().requires_grad_()
    out = layer(leaf)
    assert out.latents.requires_grad and torch.equal(out.latents, plain.latents)
    out.latents.square().sum().backward()
    assert leaf.grad.abs().sum() > 0
    if isinstance(layer, DiscreteBottleneck):
        assert torch.equal(out.latents, layer.decode(layer.encode(inputs)))


@pytest.mark.parametrize("how", ["freeze", "no_grad", "eval"])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", MEMBERS)
def test_nothing_moves_of_a_layer_that_stands_still(how, trained, name):
    layer = copy.deepcopy((TRAINED if trained else FRESH)[name])
    before = state(layer)
    if how == "freeze":
        assert layer.freeze() is layer and layer.frozen
    layer.train(how != "eval")
    for seed in range(2):
        leaf = features(layer, 4, seed=seed).requires_grad_()
        if how == "no_grad":
            with torch.no_grad():
                layer(leaf)
            continue
        out = layer(leaf)
        (total(out) if out.log_prob is None else out.log_prob.sum()).backward()
        assert leaf.grad.abs().sum() > 0
        layer.update()
    assert same_state(layer, before)
    assert all(len(codebook._summed) == 0 for codebook in codebooks(layer))
    if how == "freeze" and codebooks(layer):
        out = layer.unfreeze()(features(layer, 4))
        layer.update()
        assert not same_state(layer, before)


@pytest.mark.parametrize("name", DISCRETE)
def test_vectors_of_ones_own_stay(name):
    if not codebooks(TRAINED[name]):
        return
    for trained in (True, False):
        layer = copy.deepcopy((TRAINED if trained else FRESH)[name])
        count, dim = layer.num_codebooks, codebooks(layer)[0].table.shape[1]
        own = torch.randn(count, layer.codebook_size, dim) + 2
        layer.load_vectors(own if count > 1 else own[0])
        for codebook, given_vectors in zip(codebooks(layer), own, strict=True):
            torch.testing.assert_close(codebook.vectors, given_vectors, rtol=1e-4, atol=1e-4)
        frozen = copy.deepcopy(layer).freeze()
        for module in (layer, frozen):
            module(features(module, 4))
            module.update()
        for codebook, still, given_vectors in zip(codebooks(layer), codebooks(frozen), own, strict=True):
            torch.testing.assert_close(still.vectors, given_vectors, rtol=1e-4, atol=1e-4)
            assert (codebook.vectors - given_vectors).norm(dim=1).median() < 0.5
        with pytest.raises(SmaltiError, match="not"):
            layer.load_vectors(torch.zeros(count, 3, dim) if count > 1 else torch.zeros(3, dim))
        with pytest.raises(SmaltiError, match="finite"):
            layer.load_vectors((own if count > 1 else own[0]) * math.nan)


# ------------------------------------------------------------------ loops without update(), accidents, copies


def own_loop(layer, steps, *, update=False, accumulate=1, first=0):
    """A loop as people have it: a network, an optimiser, the layer."""
    torch.manual_seed(1)
    network = nn.Conv2d(layer.in_channels, layer.in_channels, 1)
    optimizer = torch.optim.SGD([*network.parameters(), *layer.parameters()], lr=1e-3)
    for step in range(first, first + steps):
        for part in range(accumulate):
            torch.manual_seed(100 * step + part)
            out = layer(network(features(layer, 4, seed=100 * step + part)))
            (total(out) if out.log_prob is None else out.log_prob.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.manual_seed(7 * step)  # of restarts, wherever they happen
        if update:
            layer.update()
    return layer


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", LEARNING)
def test_update_need_not_be_called(name, accumulate, monkeypatch):
    """The state is that of a loop that calls it, when it is read, and nothing is said."""
    monkeypatch.setattr("smalti.models.bottlenecks.rows.Rows.pick", lambda rows, num: rows.own[:1].expand(num, -1))
    called, left = (
        own_loop(copy.deepcopy(TRAINED[name]), 4, update=update, accumulate=accumulate) for update in (True, False)
    )
    found = left.state_dict()
    for key, value in called.state_dict().items():
        torch.testing.assert_close(found[key], value)
    assert not torch.equal(found[key], TRAINED[name].state_dict()[key]) or value.numel() == 1
    assert all(codebook._recent is None for codebook in codebooks(left))
    left = own_loop(copy.deepcopy(TRAINED[name]), 4, accumulate=accumulate).eval()
    assert all(codebook._recent is None for codebook in codebooks(left)), "averaged before the mode changes"


@pytest.mark.parametrize("name", LEARNING)
def test_without_a_step_it_is_said_once_and_memory_stays(name, monkeypatch):
    assert PATIENCE == 100
    monkeypatch.setattr("smalti.models.bottlenecks.codebook.PATIENCE", 10)
    layer = copy.deepcopy(FRESH[name])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(25):
            layer(features(layer, 1))
            held = sum(codebook._summed.numel() + codebook._recent.numel() for codebook in codebooks(layer))
    assert [str(warning.message).count("has learnt nothing in 10 forward passes") for warning in said] == [1]
    assert held <= sum(2 * codebook.table.numel() for codebook in codebooks(layer))


def test_codes_that_get_nothing_stay_for_thousands_of_steps():
    codebook = Codebook(6, 3, learning="ema", decay=0.9, restart_below=0.0, start="random")
    before, vectors, codes = codebook.vectors.clone(), torch.ones(1, 3), torch.zeros(1, dtype=torch.int64)
    for _ in range(5000):
        codebook.observe(vectors, codes)
        codebook.update()
    torch.testing.assert_close(codebook.vectors[1:], before[1:])
    assert codebook.share.isfinite().all() and codebook.sums.isfinite().all()
    for _ in range(3):  # and they learn when they get something again
        codebook.observe(vectors, codes + 1)
        codebook.update()
    torch.testing.assert_close(codebook.vectors[1], vectors[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [math.nan, 1e38])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", MEMBERS)
def test_features_that_are_not_finite_do_no_lasting_harm(name, trained, value):
    layer = copy.deepcopy((TRAINED if trained else FRESH)[name])
    bad = features(layer, 3)
    bad[1, 0, 2, 2] = value
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            before = state(layer)
            out = layer.train()(bad)
            layer.update()
            if value != 1e38 and not name.startswith("product"):  # whose other parts have finite features
                assert same_state(layer, before)
    assert len(said) <= 1
    assert all(tensor.isfinite().all() for tensor in layer.state_dict().values())
    for codes in () if out.codes is None else (out.codes, layer.encode(bad), layer.eval()(bad).codes):
        assert codes.min() >= 0 and codes.max() < layer.codebook_size
    out = layer.train()(features(layer, 3))
    layer.update()
    assert out.latents.isfinite().all() and all(value.isfinite().all() for value in state(layer).values())


@pytest.mark.parametrize("name", MEMBERS)
def test_constant_features_and_single_vectors_train(name):
    for values in (torch.zeros(2, 1, SIDE, SIDE), torch.full((1, 1, SIDE, SIDE), 3.0)):
        layer = copy.deepcopy(FRESH[name])
        for _ in range(3):
            leaf = values.expand(-1, layer.in_channels, -1, -1).clone().requires_grad_()
            out = layer(leaf)
            (total(out) if out.log_prob is None else out.log_prob.mean()).backward()
            layer.update()
            assert out.latents.isfinite().all() and leaf.grad.isfinite().all()
        assert all(value.isfinite().all() for value in layer.state_dict().values())


@pytest.mark.parametrize("name", [*LEARNING, "gaussian", "residual dropout", "dvae learned prior"])
def test_copies_go_on_alike(name):
    layer = own_loop(copy.deepcopy(TRAINED[name]), 2)
    loaded = copy.deepcopy(FRESH[name])
    loaded.load_state_dict(layer.state_dict())
    saved = io.BytesIO()
    torch.save(layer.state_dict(), saved)
    saved.seek(0)
    read = copy.deepcopy(FRESH[name])
    read.load_state_dict(torch.load(saved, weights_only=True))
    others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded, read]
    expected = own_loop(layer, 3, first=2).state_dict()
    for other in others:
        found = own_loop(other, 3, first=2).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_an_untrained_state_makes_a_started_codebook_start_again():
    fresh, started = make("vq ema", trained=False), make("vq ema")
    started.load_state_dict(fresh.state_dict())
    started(features(started, 4) + 50)
    assert started.codebook.started and (started.codebook.vectors.norm(dim=1) > 50).all()


def test_code_vectors_are_named_for_loops_with_weight_decay(layer):
    named, names = dict(layer.named_parameters()), layer.no_weight_decay()
    tables = {id(parameter) for codebook in codebooks(layer) for parameter in codebook.parameters()}
    assert {id(named[name]) for name in names} == tables
