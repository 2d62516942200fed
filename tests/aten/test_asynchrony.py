"""Calls return before their kernels ran, and what a call reads is read at the call.

The tests in a process of their own run under OPENREG_SCHEDULE=lazy, where queued work runs only when something waits for it. Needs the
built extension.
"""

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

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


def test_an_index_in_pinned_memory_comes_behind_the_copy_that_fills_it(device):
    x, index = torch.arange(8.0, device=device), torch.zeros(3, dtype=torch.long, pin_memory=True)
    numbers = torch.tensor([1, 2, 3], device=device)
    x[torch.tensor([1, 2, 3])] = x[torch.tensor([1, 2, 3])]
    with torch.openreg.schedule("lazy"):
        index.copy_(numbers, non_blocking=True)
        assert x[index].tolist() == [1, 2, 3]
        index.copy_(numbers + 3, non_blocking=True)
        x[index] = 0
        index.fill_(0)  # the call is done with it
        assert x.tolist() == [0, 1, 2, 3, 0, 0, 0, 7]


def test_operands_may_be_freed_right_after_the_call(device):
    results = []
    for i in range(50):
        x = torch.full((500,), float(i), device=device)
        results.append((x.exp2() - 2.0**i).abs().sum())
        del x
    assert torch.stack(results).sum().item() == 0
