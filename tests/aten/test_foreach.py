"""Operators over tensor lists with a device kernel: values against the CPU, which way a call takes, and when the engine takes it.

Needs the built extension.
"""

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

SPECIAL = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3e38])


def tensors(seed, dtype=torch.float32, positive=False):
    """Three tensors on the CPU: a matrix, special values, none at all."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(37, 11, generator=generator, dtype=torch.float64)
    return [(matrix.abs() + 0.1 if positive else matrix).to(dtype), SPECIAL.to(dtype), torch.empty(0, dtype=dtype)]


CALLS = {
    "add.Scalar": ("_foreach_add_", lambda dtype: (tensors(0, dtype), 0.3)),
    "add.List": ("_foreach_add_", lambda dtype: (tensors(0, dtype), tensors(1, dtype))),
    "mul.Scalar": ("_foreach_mul_", lambda dtype: (tensors(0, dtype), 0.7)),
    "mul.Scalar, an integer": ("_foreach_mul_", lambda dtype: (tensors(0, dtype), 3)),
    "mul.ScalarList": ("_foreach_mul_", lambda dtype: (tensors(0, dtype), [0.1, 2.0, -3.0])),
    "mul.List": ("_foreach_mul_", lambda dtype: (tensors(0, dtype), tensors(1, dtype))),
    "div.Scalar": ("_foreach_div_", lambda dtype: (tensors(0, dtype), 0.9)),
    "div.ScalarList": ("_foreach_div_", lambda dtype: (tensors(0, dtype), [0.1, 2.0, -3.0])),
    "div.List": ("_foreach_div_", lambda dtype: (tensors(0, dtype), tensors(1, dtype, True))),
    "lerp.Scalar near": ("_foreach_lerp_", lambda dtype: (tensors(0, dtype), tensors(1, dtype), 0.1)),
    "lerp.Scalar far": ("_foreach_lerp_", lambda dtype: (tensors(0, dtype), tensors(1, dtype), 0.9)),
    "addcmul": ("_foreach_addcmul_", lambda dtype: (tensors(0, dtype), tensors(1, dtype), tensors(2, dtype), 0.1)),
    "addcdiv": ("_foreach_addcdiv_", lambda dtype: (tensors(0, dtype), tensors(1, dtype), tensors(2, dtype, True), 0.1)),
    "addcdiv.ScalarList": ("_foreach_addcdiv_", lambda dtype: (tensors(0, dtype), tensors(1, dtype), tensors(2, dtype, True), [0.1, 2.0, -3.0])),
    "sqrt_": ("_foreach_sqrt_", lambda dtype: (tensors(0, dtype, True),)),
    "sqrt": ("_foreach_sqrt", lambda dtype: (tensors(0, dtype, True),)),
}


def on(tree, device):
    if isinstance(tree, torch.Tensor):
        return tree.clone().to(device)
    return type(tree)(on(leaf, device) for leaf in tree) if isinstance(tree, (list, tuple)) else tree


def ways(call):
    """The ways that the foreach operators of a call took."""
    with_counts = {}
    torch.openreg.reset_op_stats()
    call()
    for name, counts in torch.openreg.op_stats().items():
        with_counts[name] = {way for way in ("native", "engine", "staged") if counts[way]}
    return {way for name, taken in with_counts.items() if "_foreach_" in name for way in taken}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_values_are_those_of_the_cpu_and_a_kernel_makes_them(name, dtype):
    function, make = CALLS[name]
    want = on(make(dtype), "cpu")
    got = on(make(dtype), "openreg")
    want_results = getattr(torch, function)(*want) or want[0]
    results = []
    assert ways(lambda: results.append(getattr(torch, function)(*got))) == {"native"}
    for mine, expected in zip(results[0] or got[0], want_results):
        assert (mine.dtype, mine.shape, mine.stride()) == (expected.dtype, expected.shape, expected.stride())
        exact = 0 if "sqrt" not in name else 1.3e-6 if dtype == torch.float32 else 1e-7
        torch.testing.assert_close(mine.cpu(), expected, rtol=exact, atol=0, equal_nan=True)


def test_long_lists_take_one_launch_per_64_tensors():
    on_device = [torch.full((3,), float(i), device="openreg") for i in range(150)]
    assert ways(lambda: torch._foreach_mul_(on_device, 2.0)) == {"native"}
    assert torch.stack(on_device).cpu()[:, 0].tolist() == [2.0 * i for i in range(150)]


def test_a_tensor_twice_in_a_list_is_written_twice():
    x = torch.ones(5, device="openreg")
    torch._foreach_mul_([x, x], 3.0)
    assert x.tolist() == [9.0] * 5


def test_transposed_tensors_have_a_kernel_and_strided_ones_the_engine():
    matrix = torch.arange(12.0).view(3, 4)
    for make, way in ((lambda t: t.t(), "native"), (lambda t: t[:, ::2], "engine")):
        want, got = matrix.clone(), matrix.to("openreg")
        torch._foreach_add_([make(want)], [make(want.clone())], alpha=0.5)
        operands = [make(got)], [make(got.clone())]
        assert ways(lambda: torch._foreach_add_(*operands, alpha=0.5)) == {way}
        assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: (torch.ones(4, dtype=torch.half, device=d), torch.ones(4, dtype=torch.half, device=d)),
        lambda d: (torch.ones(4, device=d), torch.ones(4, dtype=torch.double, device=d)),
        lambda d: (torch.ones(3, 4, device=d), torch.ones(4, device=d)),
        lambda d: (lambda x: (x[:4], x[2:6]))(torch.arange(6.0, device=d)),
    ],
    ids=["half", "another dtype", "broadcast", "overlap"],
)
def test_what_the_kernel_does_not_cover_gives_what_the_cpu_gives(make):
    outcomes = []
    for device in ("cpu", "openreg"):
        self, other = make(device)
        try:
            torch._foreach_add_([self], [other])
            outcomes.append(self.cpu())
        except RuntimeError as error:
            outcomes.append(str(error))
    assert type(outcomes[0]) is type(outcomes[1])
    assert torch.equal(*outcomes) if isinstance(outcomes[0], torch.Tensor) else outcomes[0] == outcomes[1]


def test_errors_are_those_of_the_cpu():
    for lists in (([torch.ones(2)], [torch.ones(2), torch.ones(2)]), ([], [])):
        raised = []
        for device in ("cpu", "openreg"):
            with pytest.raises(RuntimeError) as caught:
                torch._foreach_add_(*on(lists, device))
            raised.append(str(caught.value))
        assert raised[0] == raised[1]


@pytest.mark.parametrize("name", ["_foreach_addcmul_", "_foreach_addcdiv_", "_foreach_addcmul", "_foreach_addcdiv"])
def test_numbers_for_a_list_may_be_packed_into_a_cpu_tensor(name, device):
    numbers = torch.tensor([0.5, -2.0, 3.0])

    def call(numbers, first, second, third):
        return getattr(torch, name)(first, second, third, numbers) or first

    lists = tensors(0), tensors(1), tensors(2, positive=True)
    want = call(numbers, *on(lists, "cpu"))
    for _ in range(2):
        got = call(numbers, *on(lists, device))
        torch.testing.assert_close([t.cpu() for t in got], list(want), equal_nan=True)
    for wrong, text in ((numbers[0], "of dimension 1"), (numbers[:2], "length of scalars"), (numbers.repeat(2)[::2], "contiguous"), (numbers.to(device), f"on CPU, got {device}")):
        with pytest.raises(RuntimeError, match=text):
            call(wrong, *on(lists, device))


@pytest.mark.parametrize("name", ["_foreach_add_", "_foreach_sub_", "_foreach_mul_", "_foreach_div_"])
def test_numbers_that_the_lists_type_cannot_hold_raise_at_the_call(name, device):
    for numbers in ([0.5, 2.0], [1, 2], [0.5, 2j], [True, 2j]):
        outcomes = []
        for where in ("cpu", device):
            x = [torch.ones(3, dtype=torch.bfloat16, device=where), torch.ones(2, dtype=torch.bfloat16, device=where)]
            try:
                getattr(torch, name)(x, numbers)
                outcomes.append([t.tolist() for t in x])
            except RuntimeError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert isinstance(outcomes[0], str) == (2j in numbers)
        torch.openreg.synchronize(device)
