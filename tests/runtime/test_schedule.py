"""Schedules: eager, lazy and random:SEED give the same results to correct programs, and show the mistakes of wrong ones.

The first half runs each case in a process of its own, because it sets the schedule of the whole program.
"""

import sys

import pytest
import torch
import torch_openreg  # noqa: F401

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


FREES = {  # work that frees device memory, queued where the next allocation asks whether it is done
    "a block of another stream": """
        side, used = torch.openreg.Stream(), torch.empty(4, device="openreg")
        used.record_stream(side)
        side.launch_host_func(box.clear)
        del used
        torch.empty(4, device="openreg")
        """,
    "an outgrown segment": """
        used = torch.empty(4 * 2**20, dtype=torch.uint8, device="openreg")
        torch.openreg.current_stream().launch_host_func(box.clear)
        del used
        torch.empty(6 * 2**20, dtype=torch.uint8, device="openreg")
        """,
}


@pytest.mark.parametrize("schedule", ["lazy", "random:3"])
@pytest.mark.parametrize("question", FREES)
def test_delayed_work_may_free_memory_while_an_allocation_asks_for_it(python, question, schedule):
    python(
        """
        import torch, torch_openreg
        box = [torch.ones(4, device="openreg")]
        torch.openreg.synchronize()
        """,
        FREES[question],
        """
        torch.openreg.synchronize()
        assert not box
        """,
        env={"OPENREG_SCHEDULE": schedule},
        timeout=30,
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


def test_the_order_of_a_random_schedule_can_be_recorded(python, tmp_path):
    logs = []
    for run in range(2):
        python(RACE, env={"OPENREG_SCHEDULE": "random:1", "OPENREG_SCHEDULE_LOG": str(tmp_path / str(run))})
        logs.append((tmp_path / str(run)).read_text())
    assert logs[0] == logs[1] and "aten::mul_" in logs[0] and "\nrun " in logs[0]


# ---- torch.openreg.schedule -------------------------------------------------


def test_schedules_nest_and_come_back_after_an_exception():
    first = torch.openreg.current_schedule()
    with torch.openreg.schedule("lazy"):
        assert torch.openreg.current_schedule() == "lazy"
        with pytest.raises(KeyError):
            with torch.openreg.schedule("random:3"):
                with torch.openreg.schedule("eager"):
                    assert torch.openreg.current_schedule() == "eager"
                assert torch.openreg.current_schedule() == "random:3"
                raise KeyError
        assert torch.openreg.current_schedule() == "lazy"
    assert torch.openreg.current_schedule() == first


def test_a_schedule_is_entered_and_left_with_nothing_queued(device):
    x = torch.zeros(4, device=device)
    x.add_(1)
    with torch.openreg.device(device):
        torch.openreg._sleep(20_000_000)
        x.add_(1)
        before = torch.openreg.current_stream().record_event()
        with torch.openreg.schedule("lazy"):
            assert before.query()
            x.add_(1)
            inside = torch.openreg.current_stream().record_event()
        assert inside.query() and x.tolist() == [3] * 4


@pytest.mark.findings("races", reason="the missing wait shows the order")
def test_nothing_runs_by_itself_inside_a_lazy_block(device):
    side, x = torch.openreg.Stream(device), torch.zeros(4, device=device)
    with torch.openreg.stream(side):
        x.clone().fill_(1)  # the first call of a kind waits; the stream has a thread from here on
    torch.openreg.synchronize(device)
    for _ in range(3):
        x.zero_()
        with torch.openreg.schedule("lazy"):
            with torch.openreg.stream(side):
                x.fill_(1)
            seen = x.clone()  # current_stream().wait_stream(side) is missing
            assert seen.tolist() == [0] * 4
        assert x.tolist() == [1] * 4


@pytest.mark.findings("races", reason="the missing wait shows the order")
def test_random_blocks_begin_with_their_seed():
    streams = [torch.openreg.Stream() for _ in range(4)]
    value = torch.zeros(1, dtype=torch.int64, device="openreg")
    value.mul_(5).add_(0)
    orders = []
    for seed in (1, 2, 3, 1, 2, 3):
        with torch.openreg.schedule(f"random:{seed}"):
            value.zero_()
            torch.openreg.synchronize()
            for number, stream in enumerate(streams * 6):
                with torch.openreg.stream(stream):
                    value.mul_(5).add_(number)
        orders.append(value.item())
    assert orders[:3] == orders[3:] and len(set(orders)) > 1


@pytest.mark.parametrize("name", ["fast", "random", "random:x", "Lazy", ""])
def test_a_bad_name_is_refused_and_changes_nothing(name):
    before = torch.openreg.current_schedule()
    with pytest.raises(ValueError, match="is not eager, lazy or random:SEED"):
        with torch.openreg.schedule(name):
            pass
    assert torch.openreg.current_schedule() == before


def test_a_capture_keeps_its_schedule_and_goes_on():
    before, graph = torch.openreg.current_schedule(), torch.openreg.Graph()
    x = torch.ones(4, device="openreg")
    x.exp()
    with torch.openreg.graph(graph):
        y = x.exp()
        with pytest.raises(ValueError, match="captured"):
            with torch.openreg.schedule("lazy"):
                pass
    graph.replay()
    assert torch.openreg.current_schedule() == before and torch.equal(y, x.exp())


@pytest.fixture
def gather():
    """Calls gather once, because the first call of a kind waits, and returns one whose index is out of bounds."""
    source = torch.ones(5, device="openreg")
    source.gather(0, torch.tensor([1], device="openreg"))
    bad = torch.tensor([9], device="openreg")
    torch.openreg.synchronize()
    return lambda: source.gather(0, bad)


def test_a_late_error_leaves_the_block_and_the_schedule_comes_back(gather):
    before = torch.openreg.current_schedule()
    with pytest.raises(torch.AcceleratorError, match="gather"):
        with torch.openreg.schedule("lazy"):
            gather()
    assert torch.openreg.current_schedule() == before
    gather()
    with pytest.raises(torch.AcceleratorError, match="gather"):
        with torch.openreg.schedule("lazy"):
            raise AssertionError("the error of earlier work is raised at the entry")
    assert torch.openreg.current_schedule() == before


def test_an_interrupted_wait_leaves_the_block_and_the_schedule_comes_back(gather, monkeypatch):
    module, before = sys.modules["torch_openreg.openreg.schedule"], torch.openreg.current_schedule()
    with pytest.raises(KeyboardInterrupt):  # not the late error, which comes second
        with torch.openreg.schedule("lazy"):
            gather()
            waits = iter([interrupted, module._synchronize_all])
            monkeypatch.setattr(module, "_synchronize_all", lambda: next(waits)())
    assert torch.openreg.current_schedule() == before and list(waits) == []


def interrupted():
    raise KeyboardInterrupt


def test_a_late_error_names_the_seed(gather):
    with torch.openreg.schedule("random:41"):
        gather()
        with pytest.raises(torch.AcceleratorError, match=r"The schedule was random:41\."):
            torch.openreg.synchronize()
    with torch.openreg.schedule("lazy"):
        gather()
        with pytest.raises(torch.AcceleratorError) as raised:
            torch.openreg.synchronize()
    assert "The schedule was" not in str(raised.value)


def test_an_exception_that_leaves_a_random_block_names_the_seed(python):
    result = python(
        """
        import torch, torch_openreg
        x = torch.ones(4, device="openreg")
        with torch.openreg.schedule("random:41"):
            assert x.sum().item() == 5
        """,
        check=False,
    )
    assert result.returncode != 0 and "AssertionError" in result.stderr and "torch.openreg.schedule('random:41')" in result.stderr


def test_a_driver_with_one_schedule_says_so(python):
    python(
        """
        import torch, torch_openreg
        assert torch.openreg.current_schedule() == ""
        try:
            with torch.openreg.schedule("lazy"):
                raise AssertionError
        except NotImplementedError as error:
            assert "one schedule only" in str(error)
        """,
        env={"OPENREG_DRIVER": "null"},
    )


def test_training_is_the_same_under_schedules_that_change_between_steps():
    def train(schedules):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)).to("openreg")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for schedule in schedules:
            with torch.openreg.schedule(schedule):
                optimizer.zero_grad()
                model(torch.randn(4, 8, device="openreg")).square().sum().backward()
                optimizer.step()
        return [parameter.detach().cpu() for parameter in model.parameters()]

    for one, other in zip(train(["eager"] * 6), train(["eager", "lazy", "random:1"] * 2)):
        assert torch.equal(one, other)
