"""Lost devices: what raises, what survives, and bringing them back. Needs the built extension and a driver that can lose a device."""

import threading

import pytest
import torch

import torch_openreg  # noqa: F401

LOST = "openreg:{} is lost: on purpose"


@pytest.fixture
def lost(device):
    """The device, warmed up and lost; reset afterwards."""
    (torch.ones(4, device=device) + 1).sum().item()
    torch.openreg.abandon(device, "on purpose")
    yield device
    torch.openreg.reset(device)


def test_every_call_that_needs_a_lost_device_raises_its_reason(device):
    kept = torch.ones(4, device=device)
    stream, event = torch.openreg.Stream(device), torch.openreg.Event()
    (kept + 1).sum().item()
    event.record(torch.openreg.current_stream(device))
    torch.openreg.abandon(device, "on purpose")
    calls = [
        lambda: kept + 1,
        lambda: kept.cpu(),
        lambda: kept.copy_(torch.zeros(4)),
        lambda: torch.zeros(3, device=device),
        lambda: torch.empty(1 << 26, device=device),
        lambda: torch.openreg.synchronize(device),
        lambda: torch.accelerator.synchronize(device),
        lambda: stream.synchronize(),
        lambda: event.synchronize(),
        lambda: stream.record_event(),
        lambda: stream.wait_event(event),
        lambda: kept.sum().item(),
    ]
    try:
        for _ in range(2):  # sticky
            for call in calls:
                with pytest.raises(torch.AcceleratorError, match="on purpose") as caught:
                    call()
                assert caught.value.error_code == 9 and "torch.openreg.reset" in str(caught.value)
        assert stream.query() and event.query() and torch.openreg.is_lost(device)
    finally:
        torch.openreg.reset(device)
    assert not torch.openreg.is_lost(device)
    kept.fill_(2)
    assert (kept + 1).tolist() == [3] * 4


def test_a_wait_names_the_device_and_the_reason(lost):
    with pytest.raises(torch.AcceleratorError, match=LOST.format(lost.index)):
        torch.openreg.synchronize(lost)


def test_the_other_device_goes_on(lost):
    other = torch.device("openreg", 1 - lost.index)
    assert (torch.ones(3, device=other) + 1).sum().item() == 6 and not torch.openreg.is_lost(other)


def test_the_first_reason_stays_and_asking_changes_nothing(lost):
    torch.openreg.abandon(lost, "another reason")
    with pytest.raises(torch.AcceleratorError, match="on purpose"):
        torch.openreg.synchronize(lost)


def test_reset_of_a_healthy_device_does_nothing(device):
    tensor = torch.arange(3.0, device=device)
    torch.openreg.reset(device)
    assert tensor.tolist() == [0, 1, 2]


@pytest.mark.unsanitized("races", "lifetime", "init", "bounds", reason="switches a mode on by itself")
def test_the_sanitizer_knows_that_memory_of_a_healthy_device_keeps_its_contents(device):
    with torch.openreg.sanitizer.collect("init") as report:
        tensor = torch.arange(3.0, device=device)
        torch.openreg.reset(device)
        assert tensor.tolist() == [0, 1, 2]
    assert not report.findings


def test_is_lost_reports_no_other_error(device):
    source, bad = torch.ones(3, device=device), torch.tensor([9], device=device)
    source.gather(0, bad - 9).sum().item()
    torch.openreg.synchronize(device)
    source.gather(0, bad)
    assert not torch.openreg.is_lost(device)
    with pytest.raises(torch.AcceleratorError, match="out of bounds"):
        torch.openreg.synchronize(device)


def test_queued_work_is_dropped_and_tensors_keep_their_memory(device):
    stream, gate, entered = torch.openreg.current_stream(device), threading.Event(), threading.Event()
    tensor = torch.zeros(4, device=device).add_(0)
    torch.openreg.synchronize(device)
    address = tensor.data_ptr()

    def hold():
        entered.set()
        gate.wait()

    with torch.openreg.stream(stream):
        stream.launch_host_func(hold)
        tensor.add_(1)
    torch.openreg.abandon(device, "on purpose")
    gate.set()
    torch.openreg.reset(device)
    tensor.fill_(5)
    assert tensor.data_ptr() == address and tensor.tolist() == [5] * 4


def test_waits_in_another_thread_end(device):
    stream, gate = torch.openreg.Stream(device), threading.Event()
    stream.launch_host_func(gate.wait)
    caught = []

    def wait():
        try:
            stream.synchronize()
        except torch.AcceleratorError as error:
            caught.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    torch.openreg.abandon(device, "on purpose")
    thread.join(60)
    gate.set()
    torch.openreg.reset(device)
    assert not thread.is_alive() and len(caught) == 1 and "on purpose" in caught[0]
    ran = []
    stream.launch_host_func(lambda: ran.append(1))
    stream.synchronize()
    assert ran == [1]


def test_a_host_function_after_an_abandoned_one_has_a_thread(device):
    stream, gate, started = torch.openreg.Stream(device), threading.Event(), threading.Event()
    stream.launch_host_func(lambda: (started.set(), gate.wait()))
    if torch.openreg.current_schedule() == "eager":
        started.wait()
    torch.openreg.abandon(device, "on purpose")
    torch.openreg.reset(device)
    ran = []
    stream.launch_host_func(lambda: ran.append(1))
    stream.synchronize()  # while the first function still waits
    assert ran == [1]
    gate.set()


def test_a_kernel_that_runs_keeps_the_device_from_its_reset(device):
    if torch.openreg.current_schedule() != "eager":
        pytest.skip("nothing runs by itself under this schedule")
    with torch.openreg.device(device):
        torch.openreg._sleep(1)
        torch.openreg.synchronize(device)
        for _ in range(200):  # until the kernel runs at the time of the loss
            entered = threading.Event()
            torch.openreg.current_stream().launch_host_func(entered.set)
            torch.openreg._sleep(50_000_000)
            entered.wait()
            torch.openreg.abandon(device, "on purpose")
            try:
                torch.openreg.reset(device, timeout=0)
            except RuntimeError as error:
                assert "cannot be reset: a kernel that was running" in str(error)
                break
        else:
            raise AssertionError("no reset was refused")
    assert torch.openreg.is_lost(device)
    torch.openreg.reset(device)
    assert torch.ones(2, device=device).sum().item() == 2


def test_memory_used_on_a_lost_stream_is_used_again(device):
    stream = torch.openreg.Stream(device)
    tensor = torch.ones(1 << 18, device=device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        tensor.add_(1)
    tensor.record_stream(stream)
    torch.openreg.abandon(device, "on purpose")
    before = torch.openreg.memory_stats(device)["active_bytes.all.current"]
    del tensor
    assert torch.openreg.memory_stats(device)["active_bytes.all.current"] <= before - (1 << 20)  # with a guard zone, it was more
    torch.openreg.reset(device)


def test_a_stream_of_another_device_that_waited_is_told_once(device):
    other = torch.device("openreg", 1 - device.index)
    stream, waiting, gate = torch.openreg.Stream(device), torch.openreg.Stream(other), threading.Event()
    torch.ones(3, device=other).add_(1).sum().item()
    stream.launch_host_func(gate.wait)
    waiting.wait_stream(stream)
    torch.openreg.abandon(device, "on purpose")
    gate.set()
    with pytest.raises(torch.AcceleratorError, match=LOST.format(device.index)):
        waiting.synchronize()
    waiting.synchronize()
    torch.openreg.reset(device)


def test_a_lost_device_ends_a_capture_with_an_error_and_its_graphs_replay_after_the_reset(device):
    with torch.openreg.device(device):
        value = torch.zeros(4, device=device).add_(0)
        torch.openreg.synchronize()
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            value.add_(1)
        graph.replay()
        torch.openreg.synchronize()
        torch.openreg.abandon(device, "on purpose")
        with pytest.raises(torch.AcceleratorError, match="on purpose"):
            graph.replay()
        torch.openreg.reset(device)
        value.zero_()
        graph.replay()
        assert value.tolist() == [1] * 4
    del graph


def test_the_null_driver_cannot_lose_a_device(python):
    python(
        """
        import torch, torch_openreg
        for call in (torch.openreg.abandon, torch.openreg.reset):
            try:
                call()
            except NotImplementedError as error:
                assert "device_lose" in str(error), error
            else:
                assert False
        assert not torch.openreg.is_lost()
        """,
        env={"OPENREG_DRIVER": "null"},
    )


def test_launch_trace_keeps_the_whole_stack(python):
    python(
        """
        import torch, torch_openreg
        source = torch.ones(5, device="openreg")
        good, bad = torch.tensor([1], device="openreg"), torch.tensor([77], device="openreg")

        def inner(index):
            return source.gather(0, index)

        def outer(index):
            return inner(index)

        outer(good)
        torch.openreg.synchronize()
        outer(bad)
        try:
            torch.openreg.synchronize()
        except torch.AcceleratorError as error:
            text = str(error)
            assert text.index("in inner") < text.index("in outer") < text.index("in <module>"), text
        else:
            assert False
        """,
        env={"OPENREG_LAUNCH_TRACE": "1"},
    )
