"""Schedules: eager, lazy and random:SEED give the same results to correct programs, and show the mistakes of wrong ones.

Each case is a process of its own, because the schedule is chosen before the first use.
"""

import pytest

SCHEDULES = ["eager", "lazy", "random:1", "random:2"]

CORRECT = """
import torch, torch_openreg
torch.manual_seed(0)
for device in ("openreg:1", "openreg:0"):
    side = torch.openreg.Stream(device)
    x = torch.randn(16, 16, device=device, requires_grad=True)
    side.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(side):
        y = torch.nn.functional.dropout(x @ x, 0.5)
    torch.openreg.current_stream(device).wait_stream(side)
    (y.sin() * 2).sum().backward()
    print(x.grad.sum().item(), y.sum().item())
    print(torch.rand(3, device=device).tolist())
    a = torch.ones(4).pin_memory().to(device, non_blocking=True)
    print((a + 1).to("openreg:0").cpu().tolist())
"""


def test_a_correct_program_has_the_same_result_under_every_schedule(python):
    results = {schedule: python(CORRECT, env={"OPENREG_SCHEDULE": schedule}).stdout for schedule in SCHEDULES}
    assert len(set(results.values())) == 1, results


@pytest.mark.parametrize("schedule", ["lazy", "random:1"])
def test_polling_loops_end(python, schedule):
    python(
        """
        import torch, torch_openreg
        for device in (0, 1):
            stream = torch.openreg.Stream(device)
            with torch.openreg.stream(stream):
                for _ in range(100):
                    x = torch.ones(4, device=f"openreg:{device}") + 1
                event = stream.record_event()
            while not event.query():
                pass
            while not stream.query():
                pass
            assert x.sum().item() == 8
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )


def test_lazy_runs_nothing_until_somebody_waits(python):
    python(
        """
        import time, torch, torch_openreg
        x = torch.ones(4, device="openreg")
        torch.openreg.synchronize()
        start = torch.openreg.Event(enable_timing=True)
        end = torch.openreg.Event(enable_timing=True)
        start.record()
        torch.openreg._sleep(1_000_000)
        end.record()
        time.sleep(0.3)
        assert not end.query() or start.elapsed_time(end) >= 1
        torch.openreg._sleep(200_000_000)
        begin = time.perf_counter()
        time.sleep(0.3)
        torch.openreg.synchronize()
        assert time.perf_counter() - begin >= 0.5  # the work began with the wait
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_lazy_makes_a_missing_dependency_fail_every_time(python):
    python(
        """
        import torch, torch_openreg
        for device in ("openreg:0", "openreg:1") * 10:
            producer, consumer = torch.openreg.Stream(device), torch.openreg.Stream(device)
            value = torch.zeros(4, device=device)
            value.clone().fill_(1)  # the first call of a kind waits
            torch.openreg.synchronize(device)
            with torch.openreg.stream(producer):
                value.fill_(1)
            with torch.openreg.stream(consumer):
                seen = value.clone()  # consumer.wait_stream(producer) is missing
                consumer.synchronize()
                assert seen.tolist() == [0] * 4
            torch.openreg.synchronize(device)
            assert value.tolist() == [1] * 4
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


RACE = """
import torch, torch_openreg
streams = [torch.openreg.Stream() for _ in range(4)]
value = torch.zeros(1, dtype=torch.int64, device="openreg")
value.mul_(5).add_(0)  # the first call of a kind waits
torch.openreg.synchronize()
for step in range(6):
    for number, stream in enumerate(streams):
        with torch.openreg.stream(stream):
            value.mul_(5).add_(number)  # no dependencies: the order is the schedule's
torch.openreg.synchronize()
print(value.item())
"""


def test_random_orders_depend_on_the_seed_and_on_nothing_else(python):
    results = [python(RACE, env={"OPENREG_SCHEDULE": f"random:{seed}"}).stdout for seed in (1, 1, 2, 3)]
    assert results[0] == results[1] and len(set(results)) > 1


@pytest.mark.parametrize("schedule", ["lazy", "random:3"])
def test_a_late_error_is_reported_under_delayed_schedules(python, schedule):
    python(
        """
        import torch, torch_openreg
        source = torch.ones(5, device="openreg:1")
        source.gather(0, torch.tensor([1], device="openreg:1"))
        bad = torch.tensor([9], device="openreg:1")
        torch.openreg.synchronize(1)
        source.gather(0, bad)
        try:
            torch.openreg.synchronize(1)
        except (torch.AcceleratorError, IndexError) as error:
            assert "gather" in str(error)
        else:
            assert False
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )


@pytest.mark.parametrize("schedule", ["lazy", "random:3"])
def test_delayed_work_is_done_before_memory_counts_as_used_up(python, schedule):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        side = torch.openreg.Stream()
        for _ in range(20):
            block = torch.empty(50 * MIB, dtype=torch.uint8, device="openreg")
            with torch.openreg.stream(side):
                block.fill_(1)
            block.record_stream(side)
            del block
        """,
        env={"OPENREG_SCHEDULE": schedule, "OPENREG_MEMORY": "128MiB"},
    )


@pytest.mark.parametrize("schedule", ["lazy", "random:3"])
def test_delayed_work_is_done_before_the_process_ends(python, schedule):
    result = python(
        """
        import torch, torch_openreg
        pinned = torch.zeros(4).pin_memory()
        x = torch.ones(4, device="openreg") + 1
        pinned.copy_(x, non_blocking=True)
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )
    assert result.stderr == ""


@pytest.mark.parametrize("schedule", ["lazy", "random:3"])
def test_a_long_queue_runs_by_itself_when_it_is_full(python, schedule):
    python(
        """
        import torch, torch_openreg
        value = torch.zeros(1, dtype=torch.int64, device="openreg")
        for _ in range(100_000):
            value.add_(1)
        assert value.item() == 100_000
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )
