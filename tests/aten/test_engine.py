"""The engine: which way a call takes, when the host waits, which errors come at the call, and what an operator call
leaves to the device.

Counts are exact. The tests in a process of their own run with OPENREG_SCHEDULE=lazy, where queued work runs only when something waits
for it. Needs the built extension.
"""

import warnings

import pytest
import torch
from parity import check, counted, ways

import torch_openreg  # noqa: F401  (registers the device)


# ---- Counts ------------------------------------------------------------------------


def test_a_device_kernel_counts_as_native(device):
    x = torch.ones(64, device=device)
    with counted():
        x + x
        x * 2
        x.neg()
        x.zero_()
        assert [ways(f"aten::{n}") for n in ("add.Tensor", "mul.Tensor", "neg", "zero_")] == [{"native": 1}] * 4


def test_the_first_call_of_a_signature_waits_and_later_ones_do_not(device):
    with counted():
        for size in (11, 11, 12, 13):
            torch.full((size,), 0.5, dtype=torch.float64, device=device).erfinv()
        assert ways("aten::erfinv") == {"engine": 4, "copied": 1, "waited": 1} or ways("aten::erfinv") == {"engine": 4}


def test_known_results_are_neither_copied_nor_waited_for(device):
    x, row = torch.rand(8, 8, device=device), torch.rand(8, device=device)
    calls = {
        "aten::erf": lambda: x.erf(),
        "aten::_softmax": lambda: x.softmax(-1),
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
        assert all(not counts["waited"] for counts in torch.openreg.op_stats().values()), torch.openreg.op_stats()


def test_scalar_values_may_change_without_waiting(device):
    x = torch.ones(4, 4, device=device)
    steps = lambda value: (torch.add(x, x.t(), alpha=value), x.clamp(max=value), x.t().mul(value), torch.pow(x, value), x.lerp(x, value))  # noqa: E731
    steps(0.5)
    with counted():
        for value in (0.25, 0.75, 3.5):
            steps(value)
        assert all(not counts["waited"] for counts in torch.openreg.op_stats().values()), torch.openreg.op_stats()


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


def test_reset_forgets_everything(device):
    torch.ones(2, device=device).exp()
    torch.openreg.reset_op_stats()
    assert torch.openreg.op_stats() == {}


# ---- Asynchrony -----------------------------------------------------------------------

# `flag` is host memory that queued work sets to 1: while it is 0, nothing that was queued behind that work has run.
QUEUE = """
import torch, torch_openreg
import torch.nn.functional as F
device = torch.device("openreg", {index})
flag, one = torch.zeros(1).pin_memory(), torch.ones(1, device=device)
def queue_flag():
    torch.openreg.synchronize(device)
    flag.zero_()
    flag.copy_(one, non_blocking=True)
    assert flag.item() == 0
"""

ASYNCHRONOUS = {
    "x + x": "2",
    "x.sin().cos()": "torch.ones(8, 8).sin().cos()",
    "x @ x": "8",
    "x.softmax(0)": "0.125",
    "torch.cat([x, x])": "1",
    "x.t().contiguous()": "1",
    "x.to(torch.float64)": "1",
    "x.clone().add_(1)": "2",
    "x.fill_(7)": "7",
    "x.sum()": "64",
    "x.sort()[0]": "1",
    "torch.linalg.qr(torch.eye(3, device=device))[0].abs()": "torch.eye(3)",
    "F.layer_norm(x, (8,))": "0",
    "F.conv2d(x[None, None], x[None, None, :2, :2])": "4",
    "F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])": "1",
    "F.embedding(torch.tensor([1, 2], device=device), x)": "1",
    "x.gather(0, torch.tensor([[3]], device=device))": "1",
    "x.to(torch.device('openreg', 1 - device.index)).to(device)": "1",
    "torch.ones(4).pin_memory().to(device, non_blocking=True)": "1",
    "torch.tensor([1.0, 1.0]).to(device)": "1",
    "torch.full((3,), 5.0, device=device)": "5",
    "torch.arange(4, device=device) * 0": "0",
    "torch.rand(4, device=device) * 0": "0",
    "torch.where(x > 0, x, 0)": "1",
    "torch._foreach_add([x, x], 1)[1]": "2",
    "x[:, 1]": "1",
    "x.masked_fill(x > 0, 3)": "3",
    "torch.dropout(x, 0.0, True)": "1",
}


@pytest.mark.parametrize("index", [0, 1])
def test_calls_return_before_their_kernels_ran(index, python):
    python(
        QUEUE.format(index=index),
        *(
            f"""
x = torch.ones(8, 8, device=device)
{call}
x = torch.ones(8, 8, device=device)
queue_flag()
result = {call}
assert flag.item() == 0, {call!r} + " waited"
torch.openreg.synchronize(device)
assert flag.item() == 1
assert torch.allclose(result.cpu().double(), torch.as_tensor({value}).double().expand(result.shape)), result
"""
            for call, value in ASYNCHRONOUS.items()
        ),
        env={"OPENREG_SCHEDULE": "lazy"},
    )


@pytest.mark.parametrize("index", [0, 1])
def test_a_training_step_does_not_wait(index, python):
    python(
        QUEUE.format(index=index),
        """
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 2)).to(device)
        for make in (
            lambda p: torch.optim.AdamW(p, lr=0.01),
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
            lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
        ):
            optimizer = make(model.parameters())
            x, y = torch.randn(4, 8, device=device), torch.randint(0, 2, (4,), device=device)
            def step():
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                return loss
            first = step().item()
            for _ in range(3):
                step()
            torch.openreg.reset_op_stats()
            queue_flag()
            step()
            waited = {name: counts for name, counts in torch.openreg.op_stats().items() if counts["waited"]}
            assert flag.item() == 0 and not waited, waited
            torch.openreg.synchronize(device)
            assert step().item() < first
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_a_stream_is_busy_until_its_work_is_done(device):
    x = torch.ones(4, device=device)
    torch.openreg.synchronize(device)
    stream = torch.openreg.current_stream(device)
    with torch.openreg.device(device):
        torch.openreg._sleep(200_000_000)
    y = x + 1
    event = stream.record_event()
    assert not stream.query() and not event.query()
    torch.openreg.synchronize(device)
    assert stream.query() and event.query() and y.tolist() == [2] * 4


def test_scalars_and_flags_are_those_of_the_launch(device):
    x = torch.ones(4, device=device)
    with torch.openreg.device(device):
        torch.openreg._sleep(50_000_000)
    alpha = torch.tensor(3.0)
    y = x * alpha
    alpha.fill_(0)
    torch.set_default_dtype(torch.float64)
    try:
        z = torch.ones(2, device=device)
    finally:
        torch.set_default_dtype(torch.float32)
    assert y.tolist() == [3] * 4 and z.dtype == torch.float64


def test_operands_may_be_freed_right_after_the_call(device):
    results = []
    for i in range(50):
        x = torch.full((500,), float(i), device=device)
        results.append((x.exp2() - 2.0**i).abs().sum())
        del x
    assert torch.stack(results).sum().item() == 0


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


# ---- Two devices ----------------------------------------------------------------------------

MIXED = {
    "add": lambda a, b: a + b,
    "mm": lambda a, b: a @ b,
    "cat": lambda a, b: torch.cat([a, b]),
    "stack": lambda a, b: torch.stack([b, a]),
    "add_": lambda a, b: a.add_(b),
    "mul out": lambda a, b: torch.mul(a, a, out=b),
    "where": lambda a, b: torch.where(a > 0, a, b),
    "addmm": lambda a, b: torch.addmm(a, a, b),
    "layer_norm": lambda a, b: torch.nn.functional.layer_norm(a, (3,), b[0]),
    "linear": lambda a, b: torch.nn.functional.linear(a, b),
    "gather": lambda a, b: a.gather(0, b.long()),
    "index_select": lambda a, b: a.index_select(0, b[0].long()),
    "masked_fill": lambda a, b: a.masked_fill(b > 0, 1),
    "lerp": lambda a, b: torch.lerp(a, b, 0.5),
    "conv": lambda a, b: torch.nn.functional.conv2d(a[None, None], b[None, None]),
    "sdpa": lambda a, b: torch.nn.functional.scaled_dot_product_attention(a[None, None], b[None, None], b[None, None]),
    "foreach": lambda a, b: torch._foreach_add([a, a], [b, b]),
    "index_put": lambda a, b: a.clone().index_put_((torch.zeros(1, dtype=torch.long, device=b.device),), b[:1]),
    "embedding": lambda a, b: torch.nn.functional.embedding(b.long(), a),
    "eq": lambda a, b: a == b,
}


@pytest.mark.parametrize("other", ["openreg:1", "cpu"])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_mixing_devices_is_an_error_that_changes_nothing(name, swap, other):
    places = ["openreg:0", other]
    for current in (0, 1):
        with torch.openreg.device(current):
            first, second = [torch.ones(3, 3, device=place) for place in (reversed(places) if swap else places)]
            for _ in range(2):
                with pytest.raises(RuntimeError, match="(?i)device|type"):
                    MIXED[name](first, second)
            assert torch.openreg.current_device() == current
            assert first.eq(1).all() and second.eq(1).all() and first.shape == second.shape == (3, 3)
    torch.openreg.synchronize(0), torch.openreg.synchronize(1)


def test_the_message_names_both_devices():
    with pytest.raises(RuntimeError, match="(?s)same device.*openreg:0.*openreg:1"):
        torch.ones(2, device="openreg:0") + torch.ones(2, device="openreg:1")
    with pytest.raises(RuntimeError, match="(?s)same device.*(openreg:0.*cpu|cpu.*openreg:0)"):
        torch.ones(2, device="openreg:0") + torch.ones(2)


def test_index_tensors_may_be_on_the_host_as_on_any_accelerator(device):
    x = torch.arange(12.0).reshape(3, 4)
    for index in (torch.tensor([0, 2]), torch.tensor([True, False, True]), torch.tensor(1)):
        assert torch.equal(x.to(device)[index].cpu(), x[index])
        y = x.to(device)
        y[index] = 5
        want = x.clone()
        want[index] = 5
        assert torch.equal(y.cpu(), want)
    with pytest.raises((RuntimeError, IndexError)):
        x[torch.tensor([0], device=device)]
    with pytest.raises(RuntimeError):
        x.to(device)[torch.tensor([0], device=torch.device("openreg", 1 - device.index))]
