"""A prepared linear layer is the layer, in every instruction set that this processor has and without kernels."""

import pytest
import torch
from torch import nn

from smalti.ops.linear import prepared_linear
from smalti.ops.native import VARIANTS, load

AVAILABLE = [variant for variant in VARIANTS if load(variant) is not None]


@pytest.fixture(params=[*AVAILABLE, "off"])
def variant(request, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", request.param)
    return request.param


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 6, 7, 13, 16, 29])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (8, 24), (48, 16), (33, 17), (600, 40)])
def test_it_equals_the_layer_for_any_number_of_rows(variant, rows, inputs, outputs):
    torch.manual_seed(0)
    for layer in (nn.Linear(inputs, outputs), nn.Conv2d(inputs, outputs, 1)):
        features = torch.randn(rows, inputs)
        expected = layer(features[:, :, None, None] if isinstance(layer, nn.Conv2d) else features).flatten(1)
        torch.testing.assert_close(prepared_linear(layer)(features), expected, rtol=1e-5, atol=1e-5)


def test_gelu_comes_after_it(variant):
    torch.manual_seed(0)
    layer, features = nn.Linear(20, 33), 3 * torch.randn(9, 20)
    expected = nn.functional.gelu(layer(features), approximate="tanh")
    torch.testing.assert_close(prepared_linear(layer, gelu=True)(features), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_row_does_not_depend_on_its_company(name, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", name)
    torch.manual_seed(0)
    apply, features = prepared_linear(nn.Linear(300, 50)), torch.randn(29, 300)
    alone = torch.cat([apply(row) for row in features.split(1)])
    assert torch.equal(apply(features), alone)


def test_features_may_be_strided():
    layer, features = nn.Linear(6, 4), torch.randn(6, 3).T
    torch.testing.assert_close(prepared_linear(layer)(features), layer(features))


def test_other_types_are_left_to_torch():
    layer, features = nn.Linear(6, 4, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(prepared_linear(layer)(features), layer(features))
