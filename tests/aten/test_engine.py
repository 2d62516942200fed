"""The engine: which way a call takes, when the host waits, and which errors and warnings come at the call.

Counts are exact. Needs the built extension.
"""

import warnings

import pytest
import torch
from parity import check, counted, ways

import torch_openreg  # noqa: F401  (registers the device)


def waiting():
    """The operators that have waited since the last reset."""
    return [name for name, counts in torch.openreg.op_stats().items() if counts["waited"]]


# ---- Counts ------------------------------------------------------------------------


def test_a_device_kernel_counts_as_native(device):
    x = torch.ones(64, device=device)
    with counted():
        x + x
        x * 2
        x.neg()
        x.zero_()
        assert [ways(f"aten::{n}") for n in ("add.Tensor", "mul.Tensor", "neg", "zero_")] == [{"native": 1}] * 4


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_call_of_a_signature_waits_and_later_ones_do_not(index, python):
    python(
        f"""
        import torch, torch_openreg
        x = {{size: torch.full((size,), 0.5, device="openreg:{index}") for size in (11, 12, 13)}}
        def ways(*sizes):
            torch.openreg.reset_op_stats()
            for size in sizes:
                x[size].erfinv()
            return {{way: count for way, count in torch.openreg.op_stats()["aten::erfinv"].items() if count}}
        assert ways(11) == {{"engine": 1, "copied": 1, "waited": 1}}
        assert ways(11, 12, 13, 11) == {{"engine": 4}}
        x[11] = x[11].double()
        assert ways(11)["waited"] == 1
        """
    )


def test_known_results_are_neither_copied_nor_waited_for(device):
    x, row = torch.rand(8, 8, device=device), torch.rand(8, device=device)
    calls = {
        "aten::erf": lambda: x.erf(),
        "aten::_softmax": lambda: x.softmax(0),
        "aten::mm": lambda: x @ x,
        "aten::sum.dim_IntList": lambda: x.sum(1),
        "aten::add.Tensor": lambda: x + row,
        "aten::sin": lambda: x.t().sin(),
        "aten::cat": lambda: torch.cat([x, x]),
        "aten::gather": lambda: x.gather(0, torch.zeros(1, 8, dtype=torch.long, device=device)),
        "aten::addmm": lambda: torch.addmm(row, x, x),
        "aten::tanh": lambda: x.tanh(),
    }
    for call in calls.values():
        call()
    for name, call in calls.items():
        with counted():
            call()
            assert ways(name) == {"engine": 1}, name


def test_sizes_may_change_without_waiting(device):
    def step(size):
        x = torch.ones(size, 3, device=device)
        return (x.exp() + torch.ones(3, device=device)).sum(1).softmax(0) @ x

    step(4)
    with counted():
        for size in range(5, 12):
            step(size)
        assert not waiting()


def test_scalar_values_may_change_without_waiting(device):
    x = torch.ones(4, 4, device=device)
    steps = lambda value: (torch.add(x, x.t(), alpha=value), x.clamp(max=value), x.t().mul(value), torch.pow(x, value), x.lerp(x, value))  # noqa: E731
    steps(0.5)
    with counted():
        for value in (0.25, 0.75, 3.5):
            steps(value)
        assert not waiting()


def test_results_that_depend_on_data_wait_every_time(device):
    x = torch.tensor([0.0, 1, 0, 2], device=device)
    for _ in range(2):
        with counted():
            assert x.nonzero().tolist() == [[1], [3]]
            assert ways("aten::nonzero")["waited"] == 1
            assert x[x > 0].tolist() == [1, 2]
            assert torch.unique(x).tolist() == [0, 1, 2]
            assert x.max().item() == 2 and ways("aten::_local_scalar_dense")["waited"] == 1


def test_the_same_shapes_with_other_data_give_other_results(device):
    for function in (
        lambda x: x.nonzero(),
        lambda x: x[x > 0.5],
        lambda x: torch.unique(x, return_counts=True),
        lambda x: x.repeat_interleave(x.long().abs()),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: torch.bincount(x.long().abs()),
        lambda x: torch.unique_consecutive(x),
        lambda x: torch.histc(x, 4),
        lambda x: x.to_sparse().coalesce().values(),
        lambda x: torch.nn.functional.one_hot(x.long().abs()),
        lambda x: torch.arange(int(x[0]), device=x.device),
    ):
        for values in ([1.0, 0, 3, 0], [0.0, 0, 0, 0], [2.0, 2, 2, 1], [5.0, 1, 0, 5]):
            check(function, torch.tensor(values), device=device)


def test_the_lists_of_torchscript_are_arguments_like_any_other(device):
    @torch.jit.script
    def fill(x):
        x[x < 3] = -1.0
        x[x[:, 1] > 6] = x[1] * 2
        return torch.cat([x, x[torch.tensor([2, 0], device=x.device)]])

    for _ in range(3):  # as it is, profiled, optimized
        assert check(lambda x: fill(x), torch.arange(9.0).reshape(3, 3), device=device) is not None


@pytest.mark.parametrize("dims", [254, 255, 256, 300])
def test_tensors_of_many_dimensions(dims, device):
    x = torch.tensor(2.5)
    for _ in range(2):
        many = x.to(device)[(None,) * dims]
        for result in (torch.digamma(many), torch.where(many > 0, many, torch.tensor(1.0)), torch.sort(many, -1)[0], many.to_sparse().to_dense()):
            assert result.shape == (1,) * dims
        torch.testing.assert_close(torch.digamma(many).flatten().cpu(), torch.digamma(x)[None])


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_numbers_that_only_uint64_holds(number, device):
    calls = {
        "full": lambda x: torch.full((3,), number, dtype=torch.uint64, device=x.device),
        "fill": lambda x: x.to(torch.uint64).fill_(number),
        "fill of floats": lambda x: x.float().fill_(number),
        "equal": lambda x: torch.full((3,), number, dtype=torch.uint64, device=x.device) == number,
        "add": lambda x: (x.float() + number, x.float() - number, x * number),
        "where": lambda x: torch.where(x > 1, number, x.to(torch.uint64)),
        "foreach": lambda x: torch._foreach_mul([x.float(), x.double()], [number, 2]) + torch._foreach_add([x.float()], number),
        "addcmul": lambda x: torch.addcmul(x.float(), x.float(), x.float(), value=number),
    }
    bad = {
        "fill of integers": lambda x: x.fill_(number),
        "less": lambda x: x.to(torch.uint64) < number,
        "masked_fill": lambda x: x.to(torch.uint64).masked_fill_(x > 1, number),
    }
    for _ in range(2):
        for name, call in calls.items():
            assert check(call, torch.arange(3), device=device) is not None, name
        for name, call in bad.items():
            assert check(call, torch.arange(3), device=device) is None, name
    torch.use_deterministic_algorithms(True)  # new memory is filled with the largest integer
    try:
        assert torch.empty(2, dtype=torch.uint64, device=device).tolist() == [2**64 - 1] * 2
    finally:
        torch.use_deterministic_algorithms(False)


def test_reset_forgets_everything(device):
    torch.ones(2, device=device).exp()
    torch.openreg.reset_op_stats()
    assert torch.openreg.op_stats() == {}


# ---- Errors at the call -----------------------------------------------------------------

BAD_CALLS = {
    "mm bool": lambda x: x.bool() @ x.bool(),
    "mm dtypes": lambda x: x @ x.double(),
    "mm sizes": lambda x: x @ x[:2],
    "add sizes": lambda x: x + x[:2, :3],
    "float to int in place": lambda x: x.long().add_(1.5),
    "sqrt in place of int": lambda x: x.long().sqrt_(),
    "bitwise on float": lambda x: x & x,
    "not of float": lambda x: ~x,
    "sub bool": lambda x: x.bool() - x.bool(),
    "neg bool": lambda x: -x.bool(),
    "dim": lambda x: x.sum(5),
    "softmax dim": lambda x: x.softmax(2),
    "cat sizes": lambda x: torch.cat([x, x[:, :2]]),
    "cat dims": lambda x: torch.cat([x, x[0]]),
    "gather dtype": lambda x: x.gather(0, x),
    "index dtype": lambda x: x[x],
    "index_select dtype": lambda x: x.index_select(0, x[0]),
    "cholesky": lambda x: torch.linalg.cholesky(x[:2]),
    "conv channels": lambda x: torch.nn.functional.conv2d(x[None, None], torch.ones(1, 2, 2, 2, device=x.device)),
    "embedding_bag 3d": lambda x: torch.nn.functional.embedding_bag(x.long()[None], x),
    "mean of int": lambda x: x.long().mean(),
    "norm of int": lambda x: x.long().norm(),
    "reshape": lambda x: x.reshape(4),
    "view": lambda x: x.t().view(-1),
    "expand": lambda x: x.expand(2, 2),
    "masked_fill": lambda x: x.masked_fill(x, 1),
    "where": lambda x: torch.where(x, x, x),
    "topk": lambda x: x.topk(9),
    "item": lambda x: x.item(),
    "bool": lambda x: bool(x),
    "complex order": lambda x: x.to(torch.complex64) < 1,
    "complex max": lambda x: x.to(torch.complex64).max(),
    "layer_norm": lambda x: torch.nn.functional.layer_norm(x, (2,)),
    "nll": lambda x: torch.nn.functional.nll_loss(x, x),
    "addmm": lambda x: torch.addmm(x, x, x[:2]),
    "bmm": lambda x: torch.bmm(x, x),
    "cross": lambda x: torch.linalg.cross(x[:, :2], x[:, :2]),
    "overflow": lambda x: x.to(torch.uint8).fill_(1.5).add(300).sub_(torch.tensor(1.5, device=x.device)),
    "prelu": lambda x: torch.nn.functional.prelu(x, torch.ones(7, device=x.device)),
    "lerp": lambda x: torch.lerp(x, x.double(), 0.5),
    "scatter": lambda x: x.scatter(0, torch.zeros(9, 9, dtype=torch.long, device=x.device), x),
    "put": lambda x: x.clone().put_(x, x),
    "unfold": lambda x: x.unfold(0, 9, 1),
    "einsum": lambda x: torch.einsum("ij,jk->iz", x, x),
    "empty max": lambda x: x[:0].max(),
    "empty argmax": lambda x: x[:0].argmax(),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_raises_the_cpus_error_at_the_call(call, device):
    x = torch.arange(9.0).reshape(3, 3)
    for _ in range(3):
        assert check(call, x, device=device) is None
    assert torch.equal((x.to(device) + 1).cpu(), x + 1)  # nothing is left behind


def test_a_bad_call_is_found_after_good_calls_of_the_operator(device):
    x = torch.ones(3, 4, device=device)
    for _ in range(3):
        x @ x.t(), x.softmax(1), torch.cat([x, x]), x.sum(0), x + x
    for call, error in (
        (lambda: x @ x, RuntimeError),
        (lambda: x.softmax(2), IndexError),
        (lambda: torch.cat([x, x[:, :1]]), RuntimeError),
        (lambda: x.sum(3), IndexError),
        (lambda: x + x[:, :3], RuntimeError),
    ):
        with pytest.raises(error):
            call()
    torch.openreg.synchronize(device)


def test_a_bad_call_is_found_after_a_call_for_no_element(device):
    """The kernel asks for the dtype only when there is an element, so the empty call proves nothing."""
    assert torch.linspace(0, 1, 0, dtype=torch.bool, device=device).numel() == 0
    with pytest.raises(NotImplementedError, match="not implemented for 'Bool'"):
        torch.linspace(0, 1, 7, dtype=torch.bool, device=device)
    torch.openreg.synchronize(device)


def test_warnings_of_the_cpu_arrive(device):
    def seen(call):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        return [str(w.message).split("(Triggered")[0] for w in caught]

    calls = {
        "real of complex": lambda d: torch.tensor([1 + 1j], device=d).to(torch.float32),
        "std of one": lambda d: torch.ones(1, device=d).std(),
        "mse broadcast": lambda d: torch.nn.functional.mse_loss(torch.ones(3, device=d), torch.ones(3, 1, device=d)),
    }
    for name, call in calls.items():
        expected = seen(lambda: call("cpu"))
        if expected:  # some of core's warnings come once per process
            assert seen(lambda: call(device)) in (expected, []), name


def test_an_assertion_on_the_device_does_not_wait_and_fails_late(device):
    good, bad = torch.ones((), dtype=torch.bool, device=device), torch.zeros((), dtype=torch.bool, device=device)
    torch._assert_async(good, "the loss is too large")  # the first call waits
    stream = torch.openreg.Stream(device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        torch.openreg._sleep(100_000_000)
        torch.openreg.reset_op_stats()
        torch._assert_async(bad, "the loss is too large")
        assert torch.openreg.op_stats()["aten::_assert_async.msg"]["waited"] == 0
        with pytest.raises(torch.AcceleratorError, match="aten::_assert_async.msg failed on openreg.*the loss is too large"):
            torch.openreg.synchronize(device)


def test_an_operator_without_a_kernel_says_how_one_is_registered(device):
    x = torch.ones(2, device=device)
    with torch.library._scoped_library("no_kernel_here", "FRAGMENT") as library:
        library.define("thrice(Tensor x) -> Tensor")
        library.impl("thrice", lambda x: torch.from_numpy(x.numpy() * 3), "CPU")
        with pytest.raises(NotImplementedError, match="Could not run 'no_kernel_here::thrice' on openreg: it has no kernel") as raised:
            torch.ops.no_kernel_here.thrice(x)
        assert "torch.library.register_kernel('no_kernel_here::thrice', 'openreg')" in str(raised.value)
        torch.library.register_kernel("no_kernel_here::thrice", "openreg", lambda x: x + x + x, lib=library)
        assert torch.ops.no_kernel_here.thrice(x).tolist() == torch.ops.no_kernel_here.thrice(x.cpu()).tolist() == [3, 3]
