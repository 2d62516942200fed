"""Convolutions: core sends those of an out-of-tree device to operators that the backend must bring. Values and gradients
against the CPU.

Needs the built extension.
"""

import copy

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
    "conv1d same": (F.conv1d, (2, 3, 9), (4, 3, 4), {"padding": "same", "dilation": 2}),
    "conv1d valid": (F.conv1d, (2, 3, 9), (4, 3, 4), {"padding": "valid"}),
    "conv1d depthwise": (F.conv1d, (2, 3, 9), (6, 1, 3), {"groups": 3}),
    "conv1d no batch": (F.conv1d, (3, 9), (4, 3, 3), {}),
    "conv2d same uneven": (F.conv2d, (2, 3, 8, 7), (5, 3, 2, 4), {"padding": "same"}),
    "conv2d dilated depthwise": (F.conv2d, (2, 4, 9, 9), (8, 1, 3, 3), {"groups": 4, "dilation": 2, "stride": 2}),
    "conv2d no channels": (F.conv2d, (2, 0, 8, 7), (5, 0, 3, 2), {}),
    "conv3d grouped": (F.conv3d, (2, 4, 5, 6, 5), (4, 2, 2, 3, 3), {"groups": 2, "stride": (1, 2, 1), "padding": (0, 1, 1)}),
    "conv3d depthwise dilated": (F.conv3d, (1, 3, 5, 6, 5), (3, 1, 2, 2, 2), {"groups": 3, "dilation": (2, 1, 2)}),
    "conv3d same": (F.conv3d, (1, 2, 4, 4, 4), (3, 2, 3, 2, 3), {"padding": "same"}),
    "conv3d empty batch": (F.conv3d, (0, 2, 5, 6, 7), (3, 2, 2, 3, 3), {}),
    "conv_transpose1d dilated": (F.conv_transpose1d, (2, 4, 9), (4, 2, 3), {"dilation": 2, "groups": 2, "padding": 1}),
    "conv_transpose1d no batch": (F.conv_transpose1d, (3, 9), (3, 4, 3), {"stride": 3, "output_padding": 2}),
    "conv_transpose2d depthwise": (F.conv_transpose2d, (2, 4, 5, 6), (4, 1, 3, 3), {"groups": 4, "stride": 2}),
    "conv_transpose2d empty batch": (F.conv_transpose2d, (0, 3, 5, 6), (3, 4, 3, 3), {}),
    "conv_transpose3d grouped": (F.conv_transpose3d, (2, 4, 3, 4, 3), (4, 2, 2, 2, 2), {"groups": 2, "stride": 2, "output_padding": (1, 0, 1)}),
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


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv2d dilated depthwise", "conv3d grouped", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128, torch.int64], ids=str)
def test_other_dtypes(name, dtype, device):
    integers = dtype == torch.int64
    function, (x, weight, bias), arguments = operands(name, torch.float32 if integers else dtype)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype.itemsize == 2 else {"rtol": 1e-4, "atol": 1e-4}
    check(function, *(t.to(dtype) for t in (x, weight, bias)), device=device, **tolerance, **arguments)
    if not integers:
        function, operand, arguments = operands(name, dtype, requires_grad=True)
        tolerance = {"rtol": 5e-2, "atol": 0.2} if dtype.itemsize == 2 else {"rtol": 1e-4, "atol": 1e-4}
        check_gradients(function, *operand, device=device, **tolerance, **arguments)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True), (True, False, True)])
def test_only_the_wanted_gradients_are_made(wanted, device):
    x, weight, bias = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    for tensor, want in zip((x, weight, bias), wanted):
        tensor.requires_grad_(want)
    check_gradients(F.conv2d, x, weight, bias, device=device, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FORWARD if "empty" not in name and "no channels" not in name])
def test_second_gradients(name, device):
    function, leaves, arguments = operands(name, requires_grad=True)

    def double(x, weight, bias):
        return torch.autograd.grad(function(x, weight, bias, **arguments).pow(2).sum(), (x, weight, bias), create_graph=True)

    check_gradients(double, *leaves, device=device, rtol=1e-3, atol=1e-2)


# Strides of results and gradients, which the CPU chooses by the formats of input and weight.
@pytest.mark.parametrize("name", ["conv2d", "conv2d strided", "conv2d depthwise", "conv2d 1x1", "conv3d", "conv_transpose2d", "conv_transpose3d"])
@pytest.mark.parametrize("which", ["input", "weight", "both"])
def test_channels_last_is_kept(name, which, device):
    function, (x, weight, bias), arguments = operands(name)
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    x = x.to(memory_format=last) if which != "weight" else x
    weight = weight.to(memory_format=last) if which != "input" else weight

    def run(x, weight, bias):
        leaves = [t.requires_grad_() for t in (x, weight, bias)]
        result = function(*leaves, **arguments)
        return result.detach(), *torch.autograd.grad(result, leaves, result.detach())

    for _ in range(2):
        check(run, x, weight, bias, device=device, rtol=1e-4, atol=1e-3)
        check(run, x, weight, bias, device=device, rtol=1e-4, atol=1e-3)


def test_strides_follow_the_algorithm_that_the_cpu_takes(device):
    """With one thread, and without oneDNN, the CPU takes another one for kernels of one element, which gives the weight's gradient other strides."""
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    weight = torch.randn(2, 4, 1, 1)

    def gradient(x, weight):
        result = F.conv2d(x, weight.requires_grad_())
        return torch.autograd.grad(result, weight, result.detach())[0]

    threads = torch.get_num_threads()
    try:
        for count, enabled in ((1, True), (2, True), (2, False), (1, True), (2, True)):
            torch.set_num_threads(count)
            with torch.backends.mkldnn.flags(enabled=enabled):
                check(gradient, x, weight, device=device, rtol=1e-4, atol=1e-3)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("module", ["Conv1d", "Conv2d", "Conv3d"])
def test_modules_pad_as_on_the_cpu(module, mode, device):
    dims = int(module[4])
    layer = getattr(torch.nn, module)(2, 4, 3, padding=1, padding_mode=mode)

    def run(x):
        twin = copy.deepcopy(layer).to(x.device)
        result = twin(x)
        return result, *torch.autograd.grad(result.sum(), [x, *twin.parameters()])

    check(run, torch.randn(2, 2, *[5] * dims, requires_grad=True), device=device, rtol=1e-4, atol=1e-4)


def test_lazy_modules_and_convolutions_without_mkldnn(device):
    check(lambda x: torch.nn.LazyConv2d(3, 2, device=x.device)(x).shape, torch.randn(1, 2, 4, 4), device=device)
    with torch.backends.mkldnn.flags(enabled=False):
        for name in ("conv2d strided", "conv3d", "conv_transpose2d"):
            function, leaves, arguments = operands(name, requires_grad=True)
            check_gradients(function, *leaves, device=device, rtol=1e-4, atol=1e-4, **arguments)


def test_time_batch_channel_order(device):
    x, weight, bias = torch.randn(6, 2, 3), torch.randn(2, 3, 4), torch.randn(4)
    check_gradients(lambda *a: torch.conv_tbc(*a, 1), *(t.requires_grad_() for t in (x, weight, bias)), device=device, rtol=1e-4, atol=1e-4)


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
    for x, weight, options in (
        ((2, 3, 8, 8), (4, 2, 3, 3), {}),
        ((2, 3, 2, 2), (4, 3, 3, 3), {}),
        ((2, 3), (4, 3, 3, 3), {}),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"stride": 0}),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"padding": -1}),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"dilation": 0}),
        ((2, 4, 8, 8), (3, 2, 3, 3), {"groups": 2}),
        ((2, 4, 8, 8), (4, 2, 3, 3), {"groups": 0}),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"stride": 2, "padding": "same"}),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"padding": "no"}),
        ((2, 3, 8, 8), (4, 3, 3, 3), {"bias": torch.ones(3)}),
    ):
        assert check(F.conv2d, torch.randn(x), torch.randn(weight), device=device, **options) is None
    for options in ({"output_padding": 3}, {"stride": 2, "output_padding": -1}):
        assert check(F.conv_transpose2d, torch.randn(2, 3, 4, 4), torch.randn(3, 2, 3, 3), device=device, **options) is None
    with pytest.raises(RuntimeError, match="type|dtype"):
        F.conv2d(torch.randn(1, 1, 4, 4, device=device), torch.randn(1, 1, 2, 2, device=device, dtype=torch.float64))
