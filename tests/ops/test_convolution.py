"""Convolutions against PyTorch's in float64, in every instruction set that this processor has and without kernels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smalti.errors import SmaltiError
from smalti.ops.convolution import Conv2d, ConvTranspose2d, convolution, phases
from smalti.ops.native import VARIANTS, load

AVAILABLE = [variant for variant in VARIANTS if load(variant) is not None]


@pytest.fixture
def avx2(monkeypatch):
    """The layers run natively."""
    if "avx2" not in AVAILABLE:
        pytest.skip("no AVX2, or no C compiler when smalti was installed")
    monkeypatch.setenv("SMALTI_KERNELS", "avx2")


@pytest.fixture(params=[*AVAILABLE, "off"])
def variant(request, monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", request.param)
    return request.param


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(1, 1, 0), (3, 1, 1), (4, 2, 1), (3, 2, 1), (1, 2, 0), (5, 3, 0), (2, 1, 2), ((1, 3), 1, 0)],
)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (20, 17), (7, 40)])
def test_values_and_gradients(variant, inputs, outputs, kernel, stride, padding, transposed, rectified):
    torch.manual_seed(0)
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    images, bias = torch.randn(3, inputs, 9, 6), torch.randn(outputs)
    weight = torch.randn(*((inputs, outputs) if transposed else (outputs, inputs)), *sides)
    ours = leaves(images.contiguous(memory_format=torch.channels_last), weight, bias)
    plain = leaves(images.double(), weight.double(), bias.double())
    found = convolution(*ours, stride=stride, padding=padding, transposed=transposed, rectified=rectified)
    function = F.conv_transpose2d if transposed else F.conv2d
    expected = function(F.relu(plain[0]) if rectified else plain[0], *plain[1:], stride, padding)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(found)
    found.backward(upstream)
    expected.backward(upstream.double())
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize("layer", [Conv2d(5, 20, 3, padding=1), ConvTranspose2d(5, 20, 4, stride=2, padding=1)])
def test_neither_company_nor_threads_change_a_bit(layer):
    torch.manual_seed(0)
    images, before = torch.randn(4, 5, 30, 23), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer.zero_grad()
            result = layer(images)
            (result.square().sum()).backward()
            found.append((result.detach(), layer.weight.grad.clone()))
    finally:
        torch.set_num_threads(before)
    for result, gradient in found[1:]:
        assert torch.equal(result, found[0][0]) and torch.equal(gradient, found[0][1])
    assert torch.equal(torch.cat([layer(image) for image in images.split(1)]), found[0][0])


@pytest.mark.usefixtures("avx2")
def test_the_result_is_channels_last_whatever_the_input_is():
    layer, images = Conv2d(3, 8, 3), torch.randn(2, 3, 8, 8)
    last = images.contiguous(memory_format=torch.channels_last)
    assert layer(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(images), layer(last))
    strided = torch.randn(2, 3, 16, 16)[:, :, ::2, ::2]
    torch.testing.assert_close(layer(strided), layer(strided.clone()), rtol=0, atol=0)


@pytest.mark.usefixtures("avx2")
def test_shapes_that_do_not_fit_are_one_line_errors():
    weight, bias = torch.zeros(5, 3, 4, 4), torch.zeros(5)
    for images, given in (
        (torch.zeros(1, 4, 8, 8), bias),
        (torch.zeros(1, 3, 8, 8), torch.zeros(4)),
        (weight[0], bias),
    ):
        with pytest.raises(SmaltiError, match="do not fit"):
            convolution(images, weight, given)
    with pytest.raises(SmaltiError, match=r"images of \(2, 9\) are too small for a kernel of \(4, 4\)"):
        convolution(torch.zeros(1, 3, 2, 9), weight, bias)


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"dilation": 2}, {"bias": False}, {"padding": "same"}, {"stride": (1, 2)}]
)
def test_what_the_kernels_do_not_do_is_pytorchs(options):
    torch.manual_seed(0)
    layer = Conv2d(4, 4, 3, rectified=True, **options)
    plain = nn.Conv2d(4, 4, 3, **options)
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(2, 4, 9, 9)
    assert torch.equal(layer(images), plain(F.relu(images)))


def test_an_output_padding_is_pytorchs():
    layer, plain = (kind(4, 4, 3, stride=2, output_padding=1) for kind in (ConvTranspose2d, nn.ConvTranspose2d))
    plain.load_state_dict(layer.state_dict())
    images = torch.randn(2, 4, 5, 5)
    assert torch.equal(layer(images), plain(images))


def test_autocast_is_pytorchs():
    layer, images = Conv2d(4, 4, 3), torch.randn(2, 4, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16
    assert layer(images).dtype == torch.float32


@pytest.mark.usefixtures("avx2")
def test_empty_batches_and_frozen_layers():
    layer = Conv2d(3, 5, 3, padding=1, rectified=True)
    assert layer(torch.zeros(0, 3, 8, 8)).shape == (0, 5, 8, 8)
    frozen = copy.deepcopy(layer).requires_grad_(False)
    images = torch.randn(1, 3, 8, 8, requires_grad=True)
    frozen(images).sum().backward()
    assert images.grad is not None and frozen.weight.grad is None
    layer(images.detach()).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.usefixtures("avx2")
def test_a_gradient_of_the_gradient_is_an_error_and_not_a_wrong_number():
    images = torch.randn(1, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(Conv2d(3, 5, 3)(images).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 1), (3, 1, 1), (5, 3, 2), (1, 2, 0), (2, 3, 1)])
def test_the_phases_of_a_transposed_convolution_have_every_tap_once(kernel, stride, padding):
    found = phases(kernel, stride, padding)
    assert [phase.first for phase in found] == list(range(stride))
    assert sorted(tap for phase in found for tap in phase.taps) == list(range(kernel))
