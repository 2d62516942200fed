"""torch.openreg.trace: events, lanes, arrows and counters. Needs the simulator, whose records tests/driver/test_trace.py tests one by one."""

import json
import os
import threading

import pytest
import torch
import torch_openreg  # noqa: F401

MIB = 2**20
MUL = "aten::mul.Tensor"


def export(trace, tmp_path):
    trace.export_chrome_trace(tmp_path / "trace.json")
    return json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def named(events, name, is_operation=True):
    return [event for event in events if event.name == name and event.is_operation == is_operation]


def warm_up(device):
    x = torch.ones(4, device=device)
    (x * 3).sum().item()
    torch.openreg.synchronize(device)


def test_calls_and_operations_of_an_operator_share_a_correlation(device):
    warm_up(device)
    x = torch.ones(4, device=device)
    with torch.openreg.trace() as trace:
        y = x * 3
    call, = named(trace.events(), MUL, is_operation=False)
    operation, = named(trace.events(), MUL)
    assert call.correlation == operation.correlation != 0
    assert call.kind == operation.kind == "launch" and operation.status == "ok"
    assert call.device == operation.device == device.index and call.stream == operation.stream != 0
    assert call.thread == threading.get_native_id()
    assert call.begin_ns <= call.end_ns and call.begin_ns <= operation.begin_ns <= operation.end_ns
    assert y.tolist() == [3] * 4


def test_events_are_in_order_and_end_with_the_wait_for_the_devices(device):
    warm_up(device)
    with torch.openreg.trace() as trace:
        x = torch.ones(4, device=device)
        for _ in range(5):
            x = x * 3
    events = trace.events()
    assert [e.begin_ns for e in events] == sorted(e.begin_ns for e in events)
    operations = named(events, MUL)
    assert len(operations) == 5 and all(a.end_ns <= b.begin_ns for a, b in zip(operations, operations[1:]))
    assert {e.device for e in events if e.kind == "sync"} == {0, 1}


def test_nothing_is_recorded_before_and_after_the_block():
    warm_up("openreg")
    x = torch.ones(4, device="openreg")
    trace = torch.openreg.trace()
    x * 3
    torch.openreg.synchronize()
    with trace:
        x * 3
    x * 3
    torch.openreg.synchronize()
    assert len(named(trace.events(), MUL)) == 1


def test_a_wait_names_its_record_and_the_arrow_goes_from_one_to_the_other(device, tmp_path):
    warm_up(device)
    producer, consumer = torch.openreg.Stream(device), torch.openreg.Stream(device)
    x = torch.ones(4, device=device)
    torch.openreg.synchronize(device)
    with torch.openreg.trace() as trace:
        with torch.openreg.stream(producer):
            y = x * 3
            done = producer.record_event()
        consumer.wait_event(done)
        with torch.openreg.stream(consumer):
            z = y * 3
    z.record_stream(torch.openreg.current_stream(device))
    record, = [e for e in trace.events() if e.kind == "record" and e.is_operation]
    wait, = [e for e in trace.events() if e.kind == "wait" and e.is_operation]
    assert wait.cause == record.correlation and record.stream != wait.stream and record.end_ns <= wait.end_ns
    lines = export(trace, tmp_path)
    start, = [line for line in lines if line["ph"] == "s" and line["cat"] == "wait"]
    finish, = [line for line in lines if line["ph"] == "f" and line["cat"] == "wait"]
    assert start["id"] == finish["id"] and start["ts"] <= finish["ts"]
    assert (start["tid"], finish["tid"]) == (record.stream, wait.stream) and start["pid"] == finish["pid"] != os.getpid()


def test_the_file_has_a_lane_per_stream_and_thread_and_an_arrow_per_operation(tmp_path):
    for device in (0, 1):
        warm_up(device)
    streams = [torch.openreg.Stream(device) for device in (0, 0, 1)]

    def work():
        for stream in streams:
            with torch.openreg.stream(stream):
                torch.ones(4, device=stream.device) * 3
                stream.synchronize()
        fed.set()
        over.wait(60)

    fed, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, name="feeder")
    with torch.openreg.trace() as trace:
        thread.start()
        assert fed.wait(60)
    number = thread.native_id
    over.set()
    thread.join()
    lines = export(trace, tmp_path)
    names = {(line["pid"], line.get("tid")): line["args"]["name"] for line in lines if line["name"] in ("process_name", "thread_name")}
    assert names[os.getpid(), None] == "host" and names[os.getpid(), number] == "feeder"
    assert names[os.getpid(), threading.get_native_id()] == threading.current_thread().name
    multiplied = [line for line in lines if line["ph"] == "X" and line["name"] == MUL and line["pid"] != os.getpid()]
    lanes = {(names[line["pid"], None], names[line["pid"], line["tid"]]) for line in multiplied}
    assert len(lanes) == 3 and [device for device, _ in sorted(lanes)] == ["openreg:0", "openreg:0", "openreg:1"]
    assert all(line["ts"] >= 0 and line["dur"] >= 0 for line in lines if line["ph"] == "X")
    for line in multiplied:
        arrow, = [end for end in lines if end["ph"] == "f" and end["cat"] == "launch" and (end["pid"], end["tid"], end["ts"]) ==
                  (line["pid"], line["tid"], line["ts"])]
        begin, = [begin for begin in lines if begin["ph"] == "s" and begin["id"] == arrow["id"]]
        call, = [c for c in lines if c["ph"] == "X" and c["pid"] == os.getpid() and c["args"]["correlation"] == line["args"]["correlation"]]
        assert (begin["pid"], begin["tid"], begin["ts"]) == (call["pid"], call["tid"], call["ts"]) and call["tid"] == number


def test_memory_of_the_device_is_a_counter(device, tmp_path):
    torch.openreg.empty_cache()
    with torch.openreg.trace() as trace:
        block = torch.empty(40 * MIB, dtype=torch.uint8, device=device)
        del block
        torch.openreg.empty_cache()
    counts = [line["args"]["bytes"] for line in export(trace, tmp_path) if line["ph"] == "C" and line["pid"] % 1000 == device.index]
    assert counts[-1] == counts[0] and max(counts) >= counts[0] + 40 * MIB
    sizes = [e.bytes for e in trace.events() if e.kind == "alloc" and e.device == device.index]
    assert sum(sizes) >= 40 * MIB


def test_copies_say_from_where_to_where(device):
    host = torch.ones(1000).pin_memory()
    host.to(device)
    torch.openreg.synchronize(device)
    with torch.openreg.trace() as trace:
        there = host.to(device, non_blocking=True)
        back = there.cpu()
    assert back.equal(host)
    copies = [(e.source, e.destination, e.bytes) for e in trace.events() if e.kind == "copy" and e.is_operation]
    assert copies == [(None, device.index, 4000), (device.index, None, 4000)]


def test_a_graph_replay_is_one_call_with_all_its_operations(device):
    x = torch.ones(4, device=device)
    with torch.openreg.device(device):
        warm_up(device)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            y = (x * 3) * 3
        with torch.openreg.trace() as trace:
            graph.replay()
    call, = [e for e in trace.events() if e.kind == "graph"]
    assert [e.correlation for e in named(trace.events(), MUL)] == [call.correlation] * 2
    assert y.tolist() == [9] * 4
    graph.reset()


def test_a_late_error_leaves_the_block_and_marks_the_operations(device):
    source, bad = torch.ones(5, device=device), torch.tensor([9], device=device)
    source.gather(0, torch.tensor([1], device=device))
    warm_up(device)
    trace = torch.openreg.trace()
    with pytest.raises((torch.AcceleratorError, IndexError), match="gather"):
        with trace:
            source.gather(0, bad)
            source * 3
    statuses = {e.name: e.status for e in trace.events() if e.is_operation and e.kind == "launch"}
    assert statuses["aten::gather"] == statuses[MUL] == "failed"


def test_an_exception_in_the_block_goes_on_and_the_trace_is_there(device):
    warm_up(device)
    x = torch.ones(4, device=device)
    trace = torch.openreg.trace()
    with pytest.raises(KeyError):
        with trace:
            x * 3
            torch.openreg.synchronize(device)
            raise KeyError("mine")
    assert named(trace.events(), MUL)


def test_traces_nest_and_end_in_any_order():
    warm_up("openreg")
    x = torch.ones(4, device="openreg")
    first, second = torch.openreg.trace(), torch.openreg.trace()
    first.start()
    x * 3
    second.start()
    x * 3
    first.stop()
    x * 3
    second.stop()
    second.stop()
    assert [len(named(t.events(), MUL, is_operation=False)) for t in (first, second)] == [2, 2]
    with pytest.raises(RuntimeError, match="started once"):
        first.start()


def test_records_beyond_the_limit_are_counted(tmp_path):
    warm_up("openreg")
    x = torch.ones(4, device="openreg")
    with torch.openreg.trace(max_events=10) as trace:
        for _ in range(50):
            x = x * 3
    assert len(trace.events()) == 10 and trace.dropped >= 90
    trace.export_chrome_trace(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["dropped_events"] == trace.dropped
    with pytest.raises(ValueError, match="max_events is 0"):
        torch.openreg.trace(max_events=0)


def test_a_long_wait_is_one_slice(tmp_path):
    stream, entered, go = torch.openreg.Stream(), threading.Event(), threading.Event()
    with torch.openreg.trace() as trace:
        stream.launch_host_func(lambda: (entered.set(), go.wait(60)))
        timer = threading.Timer(0.3, go.set)
        timer.start()
        stream.synchronize()
    timer.join()
    waits = [e for e in trace.events() if e.name == "stream_synchronize"]
    assert waits[-1].status == "ok" and entered.is_set()
    slices = [line for line in export(trace, tmp_path) if line["ph"] == "X" and line["name"] == "stream_synchronize"]
    assert len(slices) == 1 and slices[0]["dur"] * 1000 == pytest.approx(waits[-1].end_ns - waits[0].begin_ns, abs=1)


def test_a_trace_before_the_first_use_begins_with_it_and_leaves_the_settings_open(python):
    python(
        """
        import torch, torch_openreg
        trace = torch.openreg.trace()
        trace.start()
        never = torch.openreg.trace()
        never.start()
        never.stop()
        assert not torch.openreg.is_initialized()
        torch_openreg.configure(devices=3)
        torch.ones(4, device="openreg:2").fill_(2)
        trace.stop()
        assert {e.device for e in trace.events() if e.is_operation} == {2} and never.events() == []
        """
    )


@pytest.mark.parametrize("schedule", ["lazy", "random:2"])
def test_a_trace_shows_when_a_schedule_ran_the_work(schedule):
    warm_up("openreg")
    x = torch.ones(4, device="openreg")
    torch.openreg.synchronize()
    with torch.openreg.schedule(schedule), torch.openreg.trace() as trace:
        for _ in range(3):
            x = x * 3
        assert named(trace.events(), MUL) == []
        torch.openreg.synchronize()
        events = trace.events()
        synchronize = next(e for e in events if e.kind == "sync" and e.status == "ok")
        operations = named(events, MUL)
        assert len(operations) == 3 and all(synchronize.begin_ns <= e.begin_ns <= e.end_ns <= synchronize.end_ns for e in operations)


def test_lines_of_the_program_are_there_when_launches_are_traced(python):
    python(
        """
        import torch, torch_openreg
        with torch.openreg.trace() as trace:
            torch.ones(4, device="openreg") * 3
        assert any("<string>" in e.site for e in trace.events() if e.name == 'aten::mul.Tensor'), [e.site for e in trace.events()]
        """,
        env={"OPENREG_LAUNCH_TRACE": "1"},
    )


def test_a_driver_without_traces_says_so(python):
    python(
        """
        import torch, torch_openreg
        torch.ones(4, device="openreg")
        try:
            torch.openreg.trace().start()
        except NotImplementedError as error:
            assert "trace_exchange" in str(error)
        else:
            raise AssertionError
        """,
        env={"OPENREG_DRIVER": "null"},
    )


def test_ranges_of_the_program_are_on_its_threads(device):
    from torch.profiler import record_function

    weight = torch.ones(4, 4, device=device, requires_grad=True)
    (weight @ weight).sum().backward()
    with torch.openreg.trace() as trace, torch.openreg.profiler.emit_ranges():
        with torch.openreg.profiler.emit_ranges(), record_function("a step"):
            (weight @ weight).sum().backward()
    (weight @ weight).sum()
    ranges = [event for event in trace.events() if event.kind == "range"]
    (step,) = [event for event in ranges if event.name == "a step"]
    assert step.thread == threading.get_native_id() and step.device is None and not step.is_operation
    inside = [event for event in ranges if event.thread == step.thread and event.name == "aten::mm"]
    assert len(inside) == 1 and step.begin_ns <= inside[0].begin_ns <= inside[0].end_ns <= step.end_ns
    backward = [event for event in ranges if event.name == "autograd::engine::evaluate_function: MmBackward0"]
    assert len(backward) == 1
    call = next(event for event in trace.events() if event.name == "aten::mm" and event.kind == "launch" and not event.is_operation)
    assert inside[0].begin_ns <= call.begin_ns <= call.end_ns <= inside[0].end_ns


def test_without_the_hook_there_are_no_ranges(device):
    with torch.openreg.trace() as trace:
        torch.ones(2, device=device)
    assert all(event.kind != "range" for event in trace.events())
