"""Stream.launch_host_func: Python functions in stream order, their errors, and what they may not do."""

import threading

import pytest
import torch
import torch_openreg  # noqa: F401

SCHEDULES = ["eager", "lazy", "random:2"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_function_runs_between_the_work_before_and_behind_it(device, schedule):
    stream, seen = torch.openreg.Stream(device), []
    pinned = torch.zeros(4).pin_memory()
    with torch.openreg.schedule(schedule), torch.openreg.stream(stream):
        x = torch.ones(4, device=device)
        pinned.copy_(x * 2, non_blocking=True)
        stream.launch_host_func(lambda: seen.append(pinned.tolist()))
        pinned.copy_(x * 3, non_blocking=True)
        stream.launch_host_func(lambda: seen.append(pinned.tolist()))
        stream.synchronize()
    assert seen == [[2.0] * 4, [3.0] * 4]


def test_it_runs_later_and_what_is_behind_it_waits(eager, device):
    torch.ones(4, device=device).sum()  # the first call of an operator waits
    stream, go = torch.openreg.Stream(device), threading.Event()
    stream.launch_host_func(go.wait)
    with torch.openreg.stream(stream):
        total = torch.ones(4, device=device).sum()
        assert not stream.query() and not stream.query()
        go.set()
        assert total.item() == 4


def test_functions_of_two_streams_do_not_wait_for_each_other(eager, device):
    first, second, go = torch.openreg.Stream(device), torch.openreg.Stream(device), threading.Event()
    first.launch_host_func(go.wait)
    second.launch_host_func(go.set)
    first.synchronize()


def test_a_query_under_lazy_runs_it(device):
    stream, seen = torch.openreg.Stream(device), []
    with torch.openreg.schedule("lazy"):
        stream.launch_host_func(lambda: seen.append(1))
        assert seen == []
        while not stream.query():
            pass
    assert seen == [1]


@pytest.mark.parametrize("error", [ValueError("seven"), KeyError("seven"), SystemExit("seven")])
def test_what_it_raises_is_the_late_error_of_its_stream(device, error):
    stream, seen = torch.openreg.Stream(device), []

    def fails():
        raise error

    stream.launch_host_func(fails)
    stream.launch_host_func(lambda: seen.append(1))
    with pytest.raises(torch.AcceleratorError, match=f"openreg::host_function failed on {device}.*{type(error).__name__}.*seven.*fails"):
        stream.synchronize()
    assert seen == []  # skipped
    stream.launch_host_func(lambda: seen.append(2))
    stream.synchronize()
    assert seen == [2]


def test_an_error_whose_text_cannot_be_made_is_a_late_error_too(python):
    result = python("""
import functools, torch, torch_openreg
x, stream = torch.ones(4, device="openreg"), torch.openreg.Stream()
class Silent(Exception):
    def __str__(self):
        raise SystemExit("no text")
def check(x, error):
    raise error
for error in (ValueError("refused: the text shows a tensor"), Silent(), ValueError("half a pair: \\ud800")):
    stream.launch_host_func(functools.partial(check, x, error) if type(error) is not ValueError or "pair" not in str(error) else lambda: check(x, error))
    try:
        stream.synchronize()
    except torch.AcceleratorError as late:
        print(str(late).split(chr(10))[0])
stream.launch_host_func(lambda: print("goes on", flush=True))
stream.synchronize()
""", timeout=30)
    lines = result.stdout.splitlines()
    assert "ValueError (in the host function partial)" in lines[0] and "Silent (in the host function partial)" in lines[1], lines
    assert "half a pair: \\ud800" in lines[2] and lines[3:] == ["goes on"], lines


@pytest.mark.parametrize("use", [lambda x: x + 1, lambda x: x.cpu(), lambda x: torch.openreg.synchronize(), lambda x: x.fill_(2)],
                         ids=["launch", "copy", "wait", "fill"])
def test_it_may_not_use_the_device(use):
    stream, x = torch.openreg.Stream(), torch.ones(4, device="openreg")
    x + 1  # the operator is known
    stream.launch_host_func(lambda: use(x))
    with pytest.raises(torch.AcceleratorError, match="may not use the device"):
        stream.synchronize()
    assert use(x) is not x or x.tolist() == [2] * 4  # on this thread it may


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_in_a_capture_it_becomes_part_of_the_graph(schedule):
    stream, seen = torch.openreg.Stream(), []
    graph = torch.openreg.Graph()
    with torch.openreg.schedule(schedule):
        with torch.openreg.graph(graph, stream=stream):
            stream.launch_host_func(lambda: seen.append(len(seen)))
        assert seen == []
        for _ in range(3):
            graph.replay()
        torch.openreg.synchronize()
        assert seen == [0, 1, 2]
        graph.reset()
        torch.openreg.synchronize()


def test_the_function_is_dropped_after_its_call_and_with_its_graph():
    from torch_openreg.openreg import host_function

    stream, seen = torch.openreg.Stream(), []
    ran = threading.Event()
    stream.launch_host_func(lambda: seen.append(1))
    graph = torch.openreg.Graph()
    with torch.openreg.graph(graph, stream=stream):
        stream.launch_host_func(lambda: seen.append(2))
    assert len(host_function._functions) >= 1
    graph.reset()
    stream.launch_host_func(ran.set)
    stream.synchronize()
    last = threading.Event()
    stream.launch_host_func(last.set)  # its call comes behind all that are to be dropped but its own
    stream.synchronize()
    assert seen == [1] and len(host_function._functions) <= 1


def test_something_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="without parameters"):
        torch.openreg.Stream().launch_host_func(3)


@pytest.mark.parametrize("schedule", ["eager", "lazy"])
def test_functions_that_are_queued_at_the_end_of_the_program_run(python, schedule):
    result = python("""
import torch, torch_openreg
stream = torch.openreg.Stream()
for i in range(3):
    stream.launch_host_func(lambda i=i: print("ran", i, flush=True))
""", env={"OPENREG_SCHEDULE": schedule}, check=False)
    assert result.stdout.split("\n")[:-1] == ["ran 0", "ran 1", "ran 2"] and result.returncode == 0, result.stderr


def test_a_function_that_never_returns_does_not_keep_the_program(python):
    result = python("""
import threading, torch, torch_openreg
torch_openreg.shutdown._DRAIN_TIMEOUT_MS = 200
torch.openreg.Stream().launch_host_func(threading.Event().wait)
""", check=False, timeout=60)
    assert result.returncode == 0 and "ended before the function did" in result.stderr, result.stderr


def test_launch_blocking_waits_for_it(python):
    result = python("""
import torch, torch_openreg
stream, seen = torch.openreg.Stream(), []
stream.launch_host_func(lambda: seen.append(1))
print(seen)
try:
    stream.launch_host_func(lambda: 1 // 0)
except torch.AcceleratorError as error:
    print("ZeroDivisionError" in str(error))
""", env={"OPENREG_LAUNCH_BLOCKING": "1"})
    assert result.stdout == "[1]\nTrue\n"
