"""Convolutions: core sends those of an out-of-tree device to operators that the backend must bring. Values and gradients
against the CPU.

Needs the built extension.
"""

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

# (operator, input, weight, arguments); bias is added per case.
FORWARD = {
    "conv1d": (F.conv1d, (2, 3, 9), (4, 3, 3), {}),
    "conv1d strided": (F.conv1d, (2, 4, 12), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    "conv2d": (F.conv2d, (2, 3, 8, 7), (5, 3, 3, 2), {}),
    "conv2d same": (F.conv2d, (2, 3, 8, 7), (5, 3, 3, 3), {"padding": "same"}),
    "conv2d strided": (F.conv2d, (2, 4, 9, 9), (6, 4, 3, 3), {"stride": (2, 1), "padding": (1, 2), "dilation": 2}),
    "conv2d depthwise": (F.conv2d, (1, 4, 6, 6), (4, 1, 3, 3), {"groups": 4}),
    "conv2d 1x1": (F.conv2d, (3, 4, 5, 5), (2, 4, 1, 1), {}),
    "conv2d no batch": (F.conv2d, (3, 8, 7), (5, 3, 3, 2), {}),
    "conv2d empty batch": (F.conv2d, (0, 3, 8, 7), (5, 3, 3, 2), {}),
    "conv3d": (F.conv3d, (1, 2, 5, 6, 7), (3, 2, 2, 3, 3), {"padding": 1}),
    "conv_transpose1d": (F.conv_transpose1d, (2, 3, 9), (3, 4, 3), {"stride": 2}),
    "conv_transpose2d": (F.conv_transpose2d, (2, 3, 5, 6), (3, 4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "conv_transpose2d groups": (F.conv_transpose2d, (2, 4, 5, 6), (4, 2, 3, 3), {"groups": 2, "dilation": 2}),
    "conv_transpose3d": (F.conv_transpose3d, (1, 2, 3, 4, 5), (2, 3, 2, 2, 2), {}),
}


def operands(name, dtype=torch.float32, requires_grad=False):
    function, input_shape, weight_shape, arguments = FORWARD[name]
    channels = weight_shape[1] * arguments.get("groups", 1) if "transpose" in name else weight_shape[0]
    x, weight, bias = (torch.randn(shape, dtype=dtype) for shape in (input_shape, weight_shape, (channels,)))
    return function, [t.requires_grad_(requires_grad) for t in (x, weight, bias)], arguments


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_backward_give_the_cpus_values(name, device):
    function, (x, weight, bias), arguments = operands(name)
    for _ in range(2):
        check(function, x, weight, bias, device=device, rtol=1e-4, atol=1e-5, **arguments)
        check(function, x, weight, device=device, rtol=1e-4, atol=1e-5, **arguments)
    function, (x, weight, bias), arguments = operands(name, requires_grad=True)
    for _ in range(2):
        check_gradients(function, x, weight, bias, device=device, rtol=1e-4, atol=1e-4, **arguments)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "conv1d"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_other_dtypes(name, dtype, device):
    function, (x, weight, bias), arguments = operands(name, dtype)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype.itemsize == 2 else {"rtol": 1e-4, "atol": 1e-4}
    check(function, x, weight, bias, device=device, **tolerance, **arguments)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)])
def test_only_the_wanted_gradients_are_made(wanted, device):
    x, weight, bias = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    for tensor, want in zip((x, weight, bias), wanted):
        tensor.requires_grad_(want)
    check_gradients(F.conv2d, x, weight, bias, device=device, rtol=1e-4, atol=1e-4)


def test_second_gradients(device):
    def double(x, weight):
        (gradient,) = torch.autograd.grad(F.conv2d(x, weight).pow(2).sum(), x, create_graph=True)
        return gradient

    check_gradients(double, torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True), device=device, rtol=1e-3, atol=1e-3)


def test_channels_last(device):
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(4, 8, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    got = F.conv2d(x.to(device), weight.to(device))
    want = F.conv2d(x, weight)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-4)
    assert got.stride() == want.stride()
    check_gradients(F.conv2d, x, weight, device=device, rtol=1e-4, atol=1e-4)


def test_strided_inputs(device):
    x, weight = torch.randn(6, 6, 3, 2), torch.randn(4, 3, 3, 3)
    check(lambda x, w: F.conv2d(x.permute(3, 2, 0, 1), w.flip(-1)), x, weight, device=device, rtol=1e-4, atol=1e-5)


def test_a_small_network_trains_as_on_the_cpu(device):
    def train(place):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.ConvTranspose2d(4, 2, 2), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3),
        )
        x, y = torch.randn(6, 1, 10, 10), torch.randint(0, 3, (6,))
        model, x, y = model.to(place), x.to(place), y.to(place)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).cpu()

    torch.testing.assert_close(train(device), train("cpu"), rtol=1e-3, atol=1e-4)


def test_wrong_shapes_are_the_cpus_errors(device):
    for x, weight in (((2, 3, 8, 8), (4, 2, 3, 3)), ((2, 3, 2, 2), (4, 3, 3, 3)), ((2, 3), (4, 3, 3, 3))):
        check(F.conv2d, torch.randn(x), torch.randn(weight), device=device, message=False)
    with pytest.raises(RuntimeError, match="type|dtype"):
        F.conv2d(torch.randn(1, 1, 4, 4, device=device), torch.randn(1, 1, 2, 2, device=device, dtype=torch.float64))
