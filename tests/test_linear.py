"""A prepared linear layer is the layer."""

import pytest
import torch
import torch.nn.functional as F

from smalti.ops import linear
from smalti.ops.linear import prepared_linear


@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 24), (48, 16), (33, 17)])
@pytest.mark.parametrize("packing", [True, False])
def test_it_equals_f_linear_for_any_number_of_rows(monkeypatch, rows, inputs, outputs, packing):
    if not packing:
        monkeypatch.setattr(linear, "_can_pack", lambda weight: False)
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    apply = prepared_linear(weight, bias, rows)
    for count in (rows, rows + 3):
        features = torch.randn(count, inputs)
        torch.testing.assert_close(apply(features), F.linear(features, weight, bias), rtol=1e-5, atol=1e-5)


def test_other_types_are_left_to_torch():
    weight, bias = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    features = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(prepared_linear(weight, bias, 3)(features), F.linear(features, weight, bias))
