"""The negative log likelihood on device kernels: values and gradients against the CPU, targets out of range, and when the engine takes a call.

Needs the built extension.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy, nll_loss

import torch_openreg  # noqa: F401  (registers the device)


def ways():
    """The ways that the loss took since the last reset."""
    stats = torch.openreg.op_stats()
    return {way for name, counts in stats.items() if "nll_loss" in name for way in ("native", "engine", "staged") if counts[way]}


def problem(rows=17, classes=10, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, classes, generator=generator).to(dtype)
    target = torch.randint(classes, (rows,), generator=generator)
    weight = torch.rand(classes, generator=generator).to(dtype)
    return logits, target, weight


def run(device, logits, target, weight, **options):
    """The loss and the gradient of the logits."""
    leaf = logits.detach().to(device).requires_grad_()
    loss = cross_entropy(leaf, target.to(device), None if weight is None else weight.to(device), **options)
    loss.backward(torch.ones_like(loss))
    return loss.detach(), leaf.grad


def assert_like_cpu(got, want):
    for mine, expected in zip(got, want, strict=True):
        assert (mine.dtype, mine.shape, mine.stride()) == (expected.dtype, expected.shape, expected.stride())
        torch.testing.assert_close(mine.cpu(), expected, rtol=1.3e-6, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [-100, 3])
@pytest.mark.parametrize("rows", [1, 17])
def test_values_and_gradients_are_those_of_the_cpu_and_kernels_make_them(dtype, reduction, weighted, ignored, rows):
    logits, target, weight = problem(rows, dtype=dtype)
    options = {"reduction": reduction, "ignore_index": ignored}
    weight = weight if weighted else None
    want = run("cpu", logits, target, weight, **options)
    torch.openreg.reset_op_stats()
    got = run("openreg", logits, target, weight, **options)
    assert ways() == {"native"}
    assert_like_cpu(got, want)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("nothing", ["all ignored", "no weight"])
def test_rows_that_do_not_count_give_what_the_cpu_gives(reduction, nothing):
    logits, target, weight = problem()
    if nothing == "all ignored":
        target[:] = -100
    else:
        weight[:] = 0
    assert_like_cpu(run("openreg", logits, target, weight, reduction=reduction), run("cpu", logits, target, weight, reduction=reduction))


def test_infinities_and_nan_are_kept():
    logits, target, weight = problem()
    values = logits.log_softmax(1)
    values[0, target[0]], values[1, target[1]] = float("-inf"), float("nan")
    for reduction in ("none", "mean"):
        want = nll_loss(values, target, reduction=reduction)
        got = nll_loss(values.to("openreg"), target.to("openreg"), reduction=reduction)
        assert_like_cpu([got], [want])


@pytest.mark.parametrize("wrong", [-1, 10, 2**40])
@pytest.mark.parametrize("backward", [False, True])
def test_a_target_out_of_range_is_a_late_error_that_names_the_operator(wrong, backward):
    logits, target, _ = (t.to("openreg") for t in problem())
    good, total = torch.ops.aten.nll_loss_forward(logits, target, None, 1, -100)
    target[4] = wrong
    torch.openreg.synchronize()
    if backward:
        torch.ops.aten.nll_loss_backward(good, logits, target, None, 1, -100, total)
    else:
        torch.ops.aten.nll_loss_forward(logits, target, None, 1, -100)
    with pytest.raises(torch.AcceleratorError, match=rf"(?s)nll_loss_{'backward' if backward else 'forward'}.*Target {wrong} is out of bounds"):
        torch.openreg.synchronize()
    assert nll_loss(logits, target.clamp(0, 9)).isfinite()  # the stream goes on


@pytest.mark.parametrize(
    "change",
    [
        lambda logits, target: (logits.half(), target),
        lambda logits, target: (logits.bfloat16(), target),
        lambda logits, target: (logits[0], target[0]),
        lambda logits, target: (logits, target.byte()),
        lambda logits, target: (logits.t().contiguous().t(), target),
        lambda logits, target: (logits[None].transpose(1, 2), target[None]),
        lambda logits, target: (logits[:0], target[:0]),
    ],
    ids=["half", "bfloat16", "one row", "byte targets", "transposed", "with a sequence", "empty"],
)
def test_what_the_kernels_do_not_cover_goes_to_the_engine(change):
    logits, target, _ = problem()
    logits, target = change(logits.log_softmax(1), target)
    want = nll_loss(logits, target)
    on_device = torch.empty_strided(logits.size(), logits.stride(), dtype=logits.dtype, device="openreg").copy_(logits)
    torch.openreg.reset_op_stats()
    got = nll_loss(on_device, target.to("openreg"))
    assert ways() == {"engine"}
    torch.testing.assert_close(got.cpu(), want, rtol=1e-2, atol=1e-2, equal_nan=True)


def test_wrong_shapes_raise_as_on_the_cpu():
    texts = []
    for device in ("cpu", "openreg"):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            torch.ops.aten.nll_loss_forward(torch.ones(3, 4, device=device), torch.zeros(2, dtype=torch.long, device=device), None, 1, -100)
        texts.append((caught.type, str(caught.value)))
    assert texts[0] == texts[1]
