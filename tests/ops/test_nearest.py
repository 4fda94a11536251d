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


def clouds():
    """What is hard for products of bytes: features (N, D), a codebook (K, D), and a bias or None."""
    torch.manual_seed(0)
    features, codebook = torch.randn(300, 64), torch.randn(1100, 64)
    near = codebook[torch.randint(1100, (300,))] + 0.3 * torch.randn(300, 64)
    holes = near.clone()
    holes[7], holes[150, 3], holes[299, 0] = torch.nan, torch.inf, -torch.inf
    broken = codebook.clone()
    broken[5, 5] = torch.nan
    return {
        "independent": (features, codebook, None),
        "near": (near, codebook, None),
        "far from zero": (near + 100, codebook + 100, None),
        "heavy tails": (features**5, codebook**5, None),
        "one large number": (torch.cat([near, torch.full((1, 64), 1e6)]), codebook, None),
        "one far code": (near, torch.cat([codebook, torch.full((1, 64), 1e6)]), None),
        "tiny": (near * 1e-12, codebook * 1e-12, None),
        "huge": (near * 1e12, codebook * 1e12, None),
        "equal codes": (features, codebook[:1].repeat(1100, 1), None),
        "every code thrice": (near, codebook.repeat(3, 1), None),
        "equal features": (near[:1].repeat(300, 1), codebook, None),
        "whole numbers": (features.round(), codebook.round(), None),
        "zeros": (torch.zeros(300, 64), torch.zeros(1100, 64), None),
        "another depth": (near[:, :37], codebook[:, :37], None),
        "deep": (torch.randn(300, 500), torch.randn(1100, 500), None),
        "not finite": (holes, codebook, None),
        "a broken code": (near, broken, None),
        "products alone": (near, codebook, torch.zeros(1100)),
        "a bias that decides": (near, codebook, 1e5 * torch.randn(1100)),
        "codes shut out": (near, codebook, torch.where(torch.arange(1100) % 3 == 0, -torch.inf, 0.0)),
    }


@pytest.mark.parametrize("cloud", clouds())
def test_products_of_bytes_find_the_same_codes(cloud):
    """Where the processor has none of them this compares the kernel with itself."""
    native = load(AVAILABLE[0])
    features, codebook, bias = clouds()[cloud]
    bias = codebook.square().sum(1) / -2 if bias is None else bias
    found = [torch.full((len(features),), -1) for _ in range(2)]
    for bytes_too, codes in enumerate(found):
        native.nearest(features.contiguous(), codebook.contiguous(), bias, codes, bytes_too)
    assert torch.equal(*found)


def test_strided_features_and_other_types():
    features, codebook = torch.randn(6, 9).T, torch.randn(5, 6)
    expected = torch.cdist(features, codebook).argmin(1)
    assert torch.equal(nearest_code(features, codebook), expected)
    assert torch.equal(nearest_code(features.double(), codebook.double()), expected)


def test_it_is_a_proper_operator():
    arguments = torch.randn(6, 3), torch.randn(5, 3), torch.randn(5)
    torch.library.opcheck(torch.ops.smalti.nearest_code, arguments)


def test_a_quantizer_that_uses_it_is_exported_without_it():
    quantizer = VectorQuantizer(codebook_size=16, code_dim=4, start="random").eval()

    class Encode(torch.nn.Module):
        def forward(self, features):
            return quantizer.encode(features)

    features = torch.randn(2, 4, 3, 3)
    program = torch.export.export(Encode(), (features,))
    assert "smalti" not in str(program.graph)
    assert torch.equal(program.module()(features), quantizer.encode(features))
