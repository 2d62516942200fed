"""Softmax and its relatives on device kernels: values and gradients against the CPU, which way a call takes, and when the engine takes it.

Needs the built extension.
"""

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TOLERANCES = {torch.float32: (1e-5, 1e-6), torch.float64: (1e-7, 1e-7), torch.float16: (2e-3, 1e-3), torch.bfloat16: (1.6e-2, 8e-3)}
SHAPES = [(1,), (7,), (3, 1), (64, 10), (5, 32), (3, 33), (2, 3, 100), (2, 1000)]


def ways():
    """The ways that the family took since the last reset."""
    stats = torch.openreg.op_stats()
    return {way for name, counts in stats.items() if "softmax" in name for way in ("native", "engine", "staged") if counts[way]}


def numbers(shape, dtype, scale=3.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) * scale).to(dtype)


def assert_like_cpu(got, want):
    assert (got.dtype, got.shape, got.stride()) == (want.dtype, want.shape, want.stride())
    rtol, atol = TOLERANCES[want.dtype]
    torch.testing.assert_close(got.cpu(), want, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax, torch._safe_softmax], ids=["softmax", "log_softmax", "safe_softmax"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_are_those_of_the_cpu_and_kernels_make_them_and_gradients_follow(function, dtype, shape):
    input, grad = numbers(shape, dtype), numbers(shape, dtype, 1.0)
    name = "_log_softmax_backward_data" if function is torch.log_softmax else "_softmax_backward_data"
    backward = getattr(torch.ops.aten, name)
    out = function(input, -1)
    torch.openreg.reset_op_stats()
    got = function(input.to("openreg"), -1)
    assert ways() == {"native"}
    assert_like_cpu(got, out)
    assert_like_cpu(backward(grad.to("openreg"), out.to("openreg"), -1, dtype), backward(grad, out, -1, dtype))


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax, torch._safe_softmax], ids=["softmax", "log_softmax", "safe_softmax"])
@pytest.mark.parametrize("columns", [5, 40])
def test_infinities_and_nan_stay_in_their_rows(function, columns):
    inf, nan = float("inf"), float("nan")
    input = numbers((8, columns), torch.float32)
    input[0, 1], input[1, columns - 1], input[2, 0], input[3], input[4, 2] = inf, nan, -inf, -inf, 1e30
    input[5], input[6], input[7, 3] = -1e38, nan, -1e30
    assert_like_cpu(function(input.to("openreg"), -1), function(input, -1))


def test_probabilities_sum_to_one_and_the_largest_is_exact():
    rows = torch.tensor([[0.0, -200.0, -80.0], [1000.0, 1000.0, -1000.0]], device="openreg").softmax(-1).cpu()
    assert rows[0, 0] == 1 and rows[0, 1] == 0 and 0 < rows[0, 2] < 1e-30
    assert rows[1].tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "mask_shape", "mask_type"),
    [((2, 3, 5, 5), (5, 5), 0), ((2, 3, 37, 37), (2, 37), 1), ((2, 3, 4, 40), (2, 3, 4, 40), 2), ((6, 9), (6, 9), 2)],
    ids=str,
)
def test_a_mask_takes_part_in_one_kernel(dtype, shape, mask_shape, mask_type):
    input = numbers(shape, dtype)
    mask = torch.rand(mask_shape, generator=torch.Generator().manual_seed(1)) < 0.4
    mask.flatten(0, -2)[-1] = True  # a row of which nothing is left is NaN
    want = torch._masked_softmax(input, mask, len(shape) - 1, mask_type)
    torch.openreg.reset_op_stats()
    got = torch._masked_softmax(input.to("openreg"), mask.to("openreg"), len(shape) - 1, mask_type)
    assert ways() == {"native"}
    assert_like_cpu(got, want)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.t().softmax(-1),
        lambda x: x.softmax(0),
        lambda x: x[:, ::2].softmax(1),
        lambda x: x[:0].softmax(1),
        lambda x: x[0, 0].softmax(0),
        lambda x: x.softmax(1, torch.float64),
        lambda x: x.expand(2, 6, 10).log_softmax(-1),
        lambda x: torch.softmax(x.t(), 1, out=torch.empty(10, 6, device=x.device)),
    ],
    ids=["transposed", "first dimension", "strided", "empty", "no dimensions", "another dtype", "expanded", "out"],
)
def test_what_the_kernels_do_not_cover_gives_the_same(call):
    x = numbers((6, 10), torch.float32)
    assert_like_cpu(call(x.to("openreg")), call(x))


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_an_out_of_the_right_kind_is_written_by_the_kernel_and_may_be_the_input(function):
    x = numbers((6, 10), torch.float32)
    on_device = x.to("openreg")
    out = torch.empty(6, 10, device="openreg")
    torch.openreg.reset_op_stats()
    assert function(on_device, 1, out=out) is out
    assert ways() == {"native"}
    assert_like_cpu(out, function(x, 1))
    function(on_device, 1, out=on_device)
    assert_like_cpu(on_device, function(x, 1))


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_wrong_calls_raise_as_on_the_cpu(function):
    for wrong in (lambda x: function(x, 2), lambda x: function(x.long(), 1)):
        texts = []
        for device in ("cpu", "openreg"):
            with pytest.raises((RuntimeError, IndexError)) as caught:
                wrong(torch.ones(2, 3, device=device))
            texts.append((caught.type, str(caught.value)))
        assert texts[0] == texts[1]


@pytest.mark.parametrize("mask_type", [0, 1, 2, 3])
def test_masks_of_another_shape_raise_as_on_the_cpu(mask_type):
    texts = []
    for device in ("cpu", "openreg"):
        with pytest.raises(RuntimeError) as caught:
            torch._masked_softmax(torch.ones(2, 3, 4, 5, device=device), torch.zeros(4, 5, dtype=torch.bool, device=device), 3, mask_type)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax, torch._safe_softmax], ids=["softmax", "log_softmax", "safe_softmax"])
def test_gradients_flow_through_the_kernels(function):
    grads = []
    for device in ("cpu", "openreg"):
        x = numbers((4, 33), torch.float32).to(device).requires_grad_()
        (function(x, -1) * numbers((4, 33), torch.float32).to(device)).sum().backward()
        grads.append(x.grad.cpu())
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-5, atol=1e-5)


def test_second_gradients_are_those_of_the_cpu():
    results = []
    for device in ("cpu", "openreg"):
        x = numbers((3, 9), torch.float64).to(device).requires_grad_()
        for function in (torch.softmax, torch.log_softmax):
            (first,) = torch.autograd.grad((function(x, 1) ** 2).sum(), x, create_graph=True)
            results.append(torch.autograd.grad((first**2).sum(), x)[0].cpu())
    torch.testing.assert_close(results[2:], results[:2])
