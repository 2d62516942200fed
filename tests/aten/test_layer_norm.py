"""Layer normalization on device kernels: values and gradients against the CPU, which way a call takes, and when the engine takes it.

Needs the built extension.
"""

import pytest
import torch
from torch.nn.functional import layer_norm

import torch_openreg  # noqa: F401  (registers the device)

SHAPES = [((3, 5), 1), ((4, 7, 33), 1), ((2, 3, 4, 5), 2), ((2, 1000), 1), ((1, 1), 1), ((64, 31), 1)]


def ways():
    """The ways that layer normalization took since the last reset."""
    stats = torch.openreg.op_stats()
    return {way for name, counts in stats.items() if "layer_norm" in name for way in ("native", "engine", "staged") if counts[way]}


def run(device, input, weight, bias, grad, normalized):
    """Output and gradients."""
    leaves = [None if t is None else t.detach().clone().to(device).requires_grad_() for t in (input, weight, bias)]
    out = layer_norm(leaves[0], normalized, leaves[1], leaves[2], eps=1e-5)
    out.backward(grad.to(device))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


def problem(shape, dims, dtype=torch.float32, offset=0.0):
    generator = torch.Generator().manual_seed(0)
    normalized = shape[len(shape) - dims :]
    input, grad = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    weight, bias = (torch.randn(normalized, generator=generator, dtype=dtype) for _ in range(2))
    return input + offset, weight, bias, grad, normalized


def weight_count(normalized):
    return torch.Size(normalized).numel()


def assert_like_cpu(got, want, rtol, atol):
    for mine, expected in zip(got, want, strict=True):
        assert (mine.dtype, mine.shape, mine.stride()) == (expected.dtype, expected.shape, expected.stride())
        torch.testing.assert_close(mine.cpu(), expected, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("shape", "dims"), SHAPES, ids=str)
@pytest.mark.parametrize("parameters", ["both", "weight", "bias", "none"])
def test_values_and_gradients_are_those_of_the_cpu_and_kernels_make_them(shape, dims, dtype, parameters):
    input, weight, bias, grad, normalized = problem(shape, dims, dtype)
    weight = weight if parameters in ("both", "weight") else None
    bias = bias if parameters in ("both", "bias") else None
    want = run("cpu", input, weight, bias, grad, normalized)
    torch.openreg.reset_op_stats()
    got = run("openreg", input, weight, bias, grad, normalized)
    # Rows of few numbers are the engine's, because their variance may vanish.
    assert ways() == ({"native"} if weight_count(normalized) >= 8 else {"engine"})
    assert_like_cpu(got, want, *((1e-5, 2e-5) if dtype == torch.float32 else (1e-7, 1e-7)))


def test_the_statistics_are_returned():
    input, weight, bias, _, normalized = problem((2, 3, 40), 1)
    want = torch.native_layer_norm(input, normalized, weight, bias, 1e-5)
    got = torch.native_layer_norm(*(t.to("openreg") for t in (input,)), normalized, weight.to("openreg"), bias.to("openreg"), 1e-5)
    assert_like_cpu(got, want, 1e-5, 1e-6)


def test_rows_far_from_zero_keep_their_deviation():
    input, weight, bias, grad, normalized = problem((4, 512), 1, offset=1000.0)
    exact = layer_norm(input.double(), normalized, weight.double(), bias.double())
    got = layer_norm(*(t.to("openreg") for t in (input,)), normalized, weight.to("openreg"), bias.to("openreg"))
    torch.testing.assert_close(got.cpu().double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("one_thread")  # large tensors are the CPU kernels' with more
def test_the_error_of_a_row_does_not_grow_with_its_length():
    x = torch.rand(1, 3_000_001, generator=torch.Generator().manual_seed(0))
    want = layer_norm(x.double(), x.shape[1:])
    got = layer_norm(x.to("openreg"), x.shape[1:]).cpu().double()
    assert (got - want).abs().max() < 2e-6
    sums = torch.nn.functional.softmax(x.to("openreg"), 1).cpu().double().sum()
    assert abs(sums - 1) < 1e-6


def test_infinities_and_nan_stay_in_their_rows():
    input, weight, bias, grad, normalized = problem((4, 40), 1)
    input[1, 3], input[2, 39] = float("inf"), float("nan")
    want = layer_norm(input, normalized, weight, bias)
    got = layer_norm(input.to("openreg"), normalized, weight.to("openreg"), bias.to("openreg"))
    torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda input, weight: (input.half(), weight.half()),
        lambda input, weight: (input.bfloat16(), weight),
        lambda input, weight: (input.t().contiguous().t(), weight),
        lambda input, weight: (input, torch.stack([weight, weight], 1)[:, 0]),
        lambda input, weight: (input[:0], weight),
    ],
    ids=["half", "mixed", "transposed", "strided weight", "empty"],
)
def test_what_the_kernel_does_not_cover_goes_to_the_engine(change):
    input, weight, _, _, normalized = problem((6, 10), 1)
    input, weight = change(input, weight)
    want = layer_norm(input, normalized, weight)
    on_device = [torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device="openreg").copy_(t) for t in (input, weight)]
    torch.openreg.reset_op_stats()
    got = layer_norm(on_device[0], normalized, on_device[1])
    assert ways() == {"engine"}
    assert_like_cpu([got], [want], 1e-3, 1e-3)


def test_only_the_gradients_that_are_wanted_are_made():
    input, weight, bias, grad, normalized = (t.to("openreg") if isinstance(t, torch.Tensor) else t for t in problem((3, 8), 1))
    _, mean, rstd = torch.native_layer_norm(input, normalized, weight, bias, 1e-5)
    results = torch.ops.aten.native_layer_norm_backward(grad, input, normalized, mean, rstd, weight, bias, [False, True, False])
    assert [result is not None and result.numel() > 0 for result in results] == [False, True, False]


def test_wrong_shapes_raise_as_on_the_cpu():
    texts = []
    for device in ("cpu", "openreg"):
        with pytest.raises(RuntimeError) as caught:
            layer_norm(torch.ones(2, 3, device=device), (4,))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
