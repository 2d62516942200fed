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
        lambda x: torch.arange(int(x[0])),
    ):
        for values in ([1.0, 0, 3, 0], [0.0, 0, 0, 0], [2.0, 2, 2, 1], [5.0, 1, 0, 5]):
            check(lambda x: function(x).to(x.device) if function.__code__.co_names[:2] == ("torch", "arange") else function(x), torch.tensor(values), device=device)


def test_reset_forgets_everything(device):
    torch.ones(2, device=device).exp()
    torch.openreg.reset_op_stats()
    assert torch.openreg.op_stats() == {}


# ---- Asynchrony -----------------------------------------------------------------------

LAZY = """
import torch, torch_openreg
device = torch.device("openreg", {index})
stream = torch.openreg.current_stream(device)
def settled():
    torch.openreg.synchronize(device)
    assert stream.query()
"""


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    "call, value",
    [
        ("x + x", "2"),
        ("x.sin().cos()", "torch.ones(8, 8).sin().cos()"),
        ("x @ x", "8"),
        ("x.softmax(0)", "0.125"),
        ("torch.cat([x, x])", "1"),
        ("x.t().contiguous()", "1"),
        ("x.to(torch.float64)", "1"),
        ("x.add_(1)", "2"),
        ("x.fill_(7)", "7"),
        ("torch.nn.functional.layer_norm(x, (8,))", "0"),
        ("torch.nn.functional.conv2d(x[None, None], x[None, None, :2, :2])", "4"),
        ("torch.nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])", "1"),
        ("x.to(torch.device('openreg', 1 - device.index)).to(device)", "1"),
        ("torch.ones(4).pin_memory().to(device, non_blocking=True)", "1"),
        ("torch.tensor([1.0, 1.0]).to(device)", "1"),
        ("torch.full((3,), 5.0, device=device)", "5"),
        ("torch.arange(4, device=device) * 0", "0"),
        ("torch.where(x > 0, x, 0)", "1"),
        ("torch._foreach_add([x, x], 1)[1]", "2"),
        ("x[:, 1]", "1"),
    ],
)
def test_a_call_returns_before_its_kernel_ran(call, value, index, lazily):
    lazily(
        LAZY.format(index=index),
        f"""
        x = torch.ones(8, 8, device=device)
        {call}
        x = torch.ones(8, 8, device=device)
        settled()
        marker = x * 1                      # something is queued
        assert not any_ran()
        result = {call}
        assert not any_ran()
        torch.openreg.synchronize(device)
        assert torch.allclose(result.cpu().double(), torch.as_tensor({value}).double().expand(result.shape)), result
        """,
    )


@pytest.fixture
def lazily(python):
    """Runs code under OPENREG_SCHEDULE=lazy; any_ran() tells whether a kernel that the host launched last has run."""
    watch = """
    class Watch:
        def __init__(self):
            self.event = None
        def __call__(self):
            # An event behind everything that was queued: under `lazy` a query that finds it complete means that work ran by itself.
            event = torch.Event(device)
            event.record(stream)
            return event.query()
    any_ran = Watch()
    """

    def run(*pieces):
        return python(pieces[0], watch, *pieces[1:], env={"OPENREG_SCHEDULE": "lazy"})

    return run
