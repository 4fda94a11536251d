"""Nearest code against float64, in every instruction set that this processor has and without kernels."""

import pytest
import torch

from smalti.models.bottlenecks import VectorQuantizer
from smalti.ops.native import VARIANTS, load
from smalti.ops.nearest import nearest_code

AVAILABLE = [variant for variant in VARIANTS if load(variant) is not None]


@pytest.fixture(params=[*AVAILABLE, "off"])
def variant(request, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", request.param)
    return request.param


@pytest.mark.parametrize("rows", [0, 1, 5, 6, 13, 200])
@pytest.mark.parametrize(("dim", "size"), [(1, 2), (3, 7), (8, 512), (16, 33), (64, 100), (130, 40)])
def test_it_is_the_arg_max_in_float64(variant, rows, dim, size):
    torch.manual_seed(rows + dim)
    features, codebook = torch.randn(rows, dim), torch.randn(size, dim)
    distances = torch.cdist(features.double(), codebook.double())
    codes = nearest_code(features, codebook)
    assert codes.shape == (rows,) and codes.dtype == torch.int64
    if rows:
        best = distances.min(1).values
        chosen = distances.gather(1, codes[:, None])[:, 0]
        torch.testing.assert_close(chosen, best, rtol=1e-6, atol=1e-6)
        clear = distances.topk(2, largest=False).values.diff(dim=1)[:, 0] > 1e-4
        assert torch.equal(codes[clear], distances.argmin(1)[clear])


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_ties_go_to_the_lowest_index(variant, dim):
    torch.manual_seed(0)
    once = torch.randn(45, dim)
    codebook = torch.cat([once, once, once.flip(0), torch.randn(200, dim) * 50])
    codes = nearest_code(torch.cat([once, once]), codebook)
    assert torch.equal(codes, torch.arange(45).repeat(2))


def test_a_bias_of_ones_own(variant):
    features, codebook = torch.zeros(3, 4), torch.randn(5, 4)
    assert nearest_code(features, codebook, torch.tensor([0.0, 1.0, 9.0, 9.0, 2.0])).tolist() == [2, 2, 2]
    assert nearest_code(features, codebook, torch.full((5,), -torch.inf)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_feature_does_not_depend_on_its_company(name, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", name)
    features, codebook = torch.randn(50, 7), torch.randn(90, 7)
    assert torch.equal(
        nearest_code(features, codebook), torch.cat([nearest_code(f, codebook) for f in features.split(1)])
    )


def test_strided_features_and_other_types():
    features, codebook = torch.randn(6, 9).T, torch.randn(5, 6)
    expected = torch.cdist(features, codebook).argmin(1)
    assert torch.equal(nearest_code(features, codebook), expected)
    assert torch.equal(nearest_code(features.double(), codebook.double()), expected)


def test_it_is_a_proper_operator():
    arguments = torch.randn(6, 3), torch.randn(5, 3), torch.randn(5)
    torch.library.opcheck(torch.ops.smalti.nearest_code, arguments)


def test_a_quantizer_that_uses_it_is_exported_whole():
    quantizer = VectorQuantizer(codebook_size=16, code_dim=4, start="random").eval()

    class Encode(torch.nn.Module):
        def forward(self, features):
            return quantizer.encode(features)

    features = torch.randn(2, 4, 3, 3)
    program = torch.export.export(Encode(), (features,))
    assert "smalti.nearest_code" in str(program)
    assert torch.equal(program.module()(features), quantizer.encode(features))
