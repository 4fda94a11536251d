"""More laws of layers in somebody else's loop: vectors put in by hand, passes run twice, averages of models."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from laws.members import DISCRETE, MEMBERS, SIDE, features, make
from laws.test_layers import FRESH, LEARNING, TRAINED, codebooks, own_loop
from smalti.errors import SmaltiError
from smalti.models.bottlenecks import DiscreteBottleneck


@pytest.fixture(params=MEMBERS)
def layer(request):
    return copy.deepcopy(TRAINED[request.param])


def by_copy(codebook, own):
    with torch.no_grad():
        codebook.table.copy_(own)


def by_data(codebook, own):
    codebook.table.data.copy_(own)


def by_new_data(codebook, own):
    codebook.table.data = own.clone()


def by_replacement(codebook, own):
    codebook.table = nn.Parameter(own) if isinstance(codebook.table, nn.Parameter) else own.clone()


def by_state(codebook, own):
    codebook.load_state_dict({**codebook.state_dict(), "table": own.half()}, assign=True)
    assert codebook.table.dtype == torch.float32


@pytest.mark.parametrize("put", [by_copy, by_data, by_new_data, by_replacement, by_state])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", LEARNING)
def test_vectors_written_in_any_way_stay(name, trained, put):
    layer = copy.deepcopy((TRAINED if trained else FRESH)[name])
    for codebook in codebooks(layer):
        codebook.restart_below = 0.0
        put(codebook, torch.randn(codebook.table.shape).half().float() * 3 + 10)
    before = [codebook.vectors.detach().clone() for codebook in codebooks(layer)]
    for seed in range(2):
        layer(features(layer, 4, seed=seed))
        layer.update()
    for codebook, vectors in zip(codebooks(layer), before, strict=True):
        assert (codebook.vectors - vectors).norm(dim=1).median() < 0.5


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_pass_has_the_same_gradient(layer, reentrant):
    """It is run twice: with the same code vectors and the same noise, also when an update was due before it."""

    def gradients(run):
        own, found = copy.deepcopy(layer), []
        for codebook in codebooks(own):
            codebook.decay, codebook.restart_below = 0.5, 0.9 if codebook.restart_below else 0.0
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *own.parameters()], lr=1e-3)
        for seed in range(3):
            torch.manual_seed(seed)
            leaf = features(own, 4, seed=seed).requires_grad_()
            out = run(lambda values: tuple(value for value in own(values)[::2] if value is not None), leaf)
            log_prob = own(leaf.detach()).log_prob if not out[0].requires_grad else None
            (out[0].square().sum() + out[1].sum() if log_prob is None else out[1].sum()).backward()
            found.append(leaf.grad)
            optimizer.step()
        return found

    def twice(function, leaf):
        return checkpoint(function, leaf, use_reentrant=reentrant)

    for plain, checked in zip(gradients(lambda run, leaf: run(leaf)), gradients(twice), strict=True):
        torch.testing.assert_close(plain, checked)


def test_averages_of_models_with_their_buffers(layer):
    if not layer.state_dict():
        return
    teacher = AveragedModel(layer, use_buffers=True)
    own_loop(layer, 2)
    teacher.update_parameters(layer)
    own_loop(layer, 2, first=2)
    teacher.update_parameters(layer)
    assert all(value.isfinite().all() for value in teacher.eval()(features(layer, 2)) if torch.is_tensor(value))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_layer_built_without_memory_is_that_of_its_state(name):
    with torch.device("meta"):
        empty = make(name, trained=False).eval()
    values = features(empty, 3)
    assert empty(values.to("meta")).latents.shape == (3, empty.out_channels, SIDE, SIDE)
    layer, filled = copy.deepcopy(TRAINED[name]).eval(), empty.to_empty(device="cpu")
    filled.load_state_dict(layer.state_dict())
    assert torch.equal(filled(values).latents, layer(values).latents)


@pytest.mark.parametrize("name", ["vq gradient", "vq simvq", "dvae distance", "vq ema"])
def test_weight_decay_of_code_vectors_is_said_once(name):
    layer = copy.deepcopy(TRAINED[name])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1)), *layer.parameters()])
            layer(features(layer, 2))
            optimizer.step()
    assert ["weight decay of 0.01" in str(warning.message) for warning in said] == [True] * (name != "vq ema")


def test_copies_of_data_parallel_say_that_they_do_not_learn():
    layer = copy.deepcopy(TRAINED["vq ema"])
    with pytest.warns(UserWarning, match="use DistributedDataParallel"):
        replica = codebooks(layer)[0]._replicate_for_data_parallel()
    assert not replica.train().learns and codebooks(layer)[0].learns


def anything(*values: Any) -> tuple[Any, ...]:
    return values


def test_what_is_no_tensor_is_a_one_line_error(layer):
    values = features(layer, 2)
    for odd in anything(None, "x", values.tolist(), values.numpy(), values.to_sparse()):
        with pytest.raises(SmaltiError, match="features must be a dense tensor"):
            layer(odd)
        with pytest.raises(SmaltiError, match="a mask must be a dense tensor"):
            layer(values, "x" if odd is None else odd)
        if isinstance(layer, DiscreteBottleneck):
            with pytest.raises(SmaltiError, match="codes must be a dense tensor"):
                layer.decode(odd)  # pyright: ignore[reportArgumentType]
    for codebook in codebooks(layer):
        for odd in anything(None, "x", [[1.0], []], codebook.table + 1j, codebook.table.to("meta")):
            with pytest.raises(SmaltiError, match="code vectors must be"):
                codebook.load_vectors(odd)


@pytest.mark.parametrize("name", DISCRETE)
def test_samples_from_the_prior_are_decoded_where_the_layer_is(name, monkeypatch):
    layer, where = copy.deepcopy(TRAINED[name]).to("meta"), []
    monkeypatch.setattr(type(layer), "decode", lambda _, codes: where.append(codes.device.type) or codes.float())
    layer.sample_prior(2, SIDE, SIDE)
    assert where == ["meta"]
