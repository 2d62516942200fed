"""The watchdog: waits that take too long are reported, and hung kernels are given up where that was asked for. Each test is a process of its own."""

import pytest

HUNG_KERNEL = """
import threading, time
import torch, torch_openreg
a = torch.ones(4, 4, device="openreg")
(a @ a).sum().item()
b = torch.ones(4, 4, device="openreg:1")
(b @ b).sum().item()
plan = torch.openreg.faults("launch:aten::mm#1 of openreg:0=hang")
report = plan.__enter__()
"""


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:1"])
def test_a_hung_kernel_is_given_up_and_the_waiting_host_gets_an_error(python, schedule):
    result = python(
        HUNG_KERNEL,
        """
        a @ a
        try:
            torch.openreg.synchronize()
        except torch.AcceleratorError as error:
            assert error.error_code == 9 and "openreg:0 is lost: aten::mm on stream" in str(error), error
        else:
            assert False
        assert (b @ b).sum().item() == 64
        torch.openreg.reset()
        a.fill_(1)
        assert (a @ a).sum().item() == 64 and report.count == 1
        """,
        env={"OPENREG_STALL_SECONDS": "0.3", "OPENREG_STALL_ACTION": "abandon", "OPENREG_SCHEDULE": schedule},
    )
    assert "a wait for a device has taken 0." in result.stderr and "running: aten::mm" in result.stderr


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:1"])
def test_a_hung_host_function_is_given_up_too(python, schedule):
    python(
        """
        import threading
        import torch, torch_openreg
        gate, stream = threading.Event(), torch.openreg.current_stream()
        for attempt in range(2):  # the second finds the first one's thread taken
            stream.launch_host_func(gate.wait)
            try:
                stream.synchronize()
            except torch.AcceleratorError as error:
                assert "openreg:0 is lost: openreg::host_function" in str(error), error
            else:
                assert False
            torch.openreg.reset()
        ran = []
        stream.launch_host_func(lambda: ran.append(1))
        stream.synchronize()
        assert ran == [1]
        gate.set()
        """,
        env={"OPENREG_STALL_SECONDS": "0.3", "OPENREG_STALL_ACTION": "abandon", "OPENREG_SCHEDULE": schedule},
    )


def test_a_stall_is_reported_once_and_goes_on_by_default(python):
    result = python(
        HUNG_KERNEL,
        """
        threading.Timer(1.5, lambda: plan.__exit__()).start()
        a @ a
        torch.openreg.synchronize()
        """,
        env={"OPENREG_STALL_SECONDS": "0.3"},
    )
    assert result.stderr.count("a wait for a device has taken") == 1
    assert "openreg:0 stream 1: 2 tasks queued, running: aten::mm" in result.stderr


def test_a_thread_that_runs_the_hung_task_itself_is_reported(python):
    result = python(
        HUNG_KERNEL,
        """
        threading.Timer(1.5, lambda: plan.__exit__()).start()
        a @ a
        torch.openreg.synchronize()
        """,
        env={"OPENREG_STALL_SECONDS": "0.3", "OPENREG_SCHEDULE": "lazy"},
    )
    assert result.stderr.count("a wait for a device has taken") == 1


def test_zero_seconds_switch_the_watchdog_off(python):
    result = python(
        HUNG_KERNEL,
        """
        threading.Timer(0.5, lambda: plan.__exit__()).start()
        a @ a
        torch.openreg.synchronize()
        assert not torch.openreg.is_lost()
        """,
        env={"OPENREG_STALL_SECONDS": "0", "OPENREG_STALL_ACTION": "abandon"},
    )
    assert result.stderr == ""


def test_a_long_queue_of_short_kernels_is_no_stall_to_give_up(python):
    python(
        """
        import torch, torch_openreg
        torch.openreg._sleep(1)
        torch.openreg.synchronize()
        for _ in range(30):
            torch.openreg._sleep(40_000_000)
        torch.openreg.synchronize()
        assert not torch.openreg.is_lost()
        """,
        env={"OPENREG_STALL_SECONDS": "0.3", "OPENREG_STALL_ACTION": "abandon"},
    )


@pytest.mark.parametrize("action", ["report", "abandon"])
def test_a_launch_that_waits_for_room_is_reported_and_can_be_given_up(python, action):
    result = python(
        f"""
        import threading, torch, torch_openreg
        ended, stream = threading.Event(), torch.openreg.Stream()
        stream.launch_host_func(ended.wait)
        if {action == "report"}:
            threading.Timer(1.5, ended.set).start()
        try:
            with torch.openreg.stream(stream):
                for _ in range(100_000):  # no wait among them
                    torch.openreg._sleep(1)
            torch.openreg.synchronize()
        except torch.AcceleratorError as error:
            assert {action == "abandon"} and "is lost" in str(error), error
        else:
            assert {action == "report"}
        ended.set()
        """,
        env={"OPENREG_STALL_SECONDS": "0.3", "OPENREG_STALL_ACTION": action},
    )
    assert "a wait for room in the queue for openreg::sleep has taken" in result.stderr, result.stderr
    assert result.stderr.count("has taken") == 1


@pytest.mark.parametrize("name,value", [("OPENREG_STALL_ACTION", "explode"), ("OPENREG_STALL_SECONDS", "soon"), ("OPENREG_STALL_SECONDS", "-1")])
def test_a_bad_setting_is_named_at_the_first_use(python, name, value):
    python(
        f"""
        import torch, torch_openreg
        try:
            torch.ones(2, device="openreg")
        except ValueError as error:
            assert "{name}" in str(error) and "{value}" in str(error), error
        else:
            assert False
        """,
        env={name: value},
    )
