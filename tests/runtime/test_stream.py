"""Streams: which is current, who waits for whom, ids and priorities, waiting, and threads."""

import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch_openreg  # noqa: F401

BUSY_NS = 100_000_000  # long against the host's time for a call, short against a test's


def test_the_default_stream_is_current_at_first_in_every_thread(device):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.openreg.current_stream(device)))
    thread.start()
    thread.join()
    assert torch.openreg.current_stream(device) == torch.openreg.default_stream(device) == seen[0]
    assert torch.openreg.current_stream(device).device == device
    assert torch.accelerator.current_stream(device) == torch.openreg.current_stream(device)


def test_streams_are_torch_streams_and_compare_and_hash_like_them(device):
    stream = torch.openreg.Stream(device)
    same = torch.Stream(stream_id=stream.stream_id, device_index=stream.device_index, device_type=stream.device_type)
    assert isinstance(stream, torch.Stream) and stream.device == device
    assert stream == same and hash(stream) == hash(same) and len({stream, same}) == 1
    assert stream != torch.openreg.Stream(device)
    assert stream != None and stream != 3 and stream != "stream"  # noqa: E711
    assert repr(stream) == f"torch.openreg.Stream(device={device}, stream_id={stream.stream_id})"


def test_a_stream_and_its_device_are_current_inside_its_context(device):
    stream = torch.openreg.Stream(device)
    for context in (torch.openreg.stream(stream), stream):
        with context:
            assert torch.openreg.current_device() == device.index
            assert torch.openreg.current_stream() == stream
            other = 1 - device.index
            assert torch.openreg.current_stream(other) == torch.openreg.default_stream(other)
        assert torch.openreg.current_device() == 0
        assert torch.openreg.current_stream(device) == torch.openreg.default_stream(device)


def test_stream_contexts_nest_and_restore_after_an_exception(device):
    first, second = torch.openreg.Stream(device), torch.openreg.Stream(1 - device.index)
    with torch.openreg.stream(first):
        with pytest.raises(KeyError):
            with torch.openreg.stream(second):
                with torch.openreg.stream(first):
                    assert torch.openreg.current_stream() == first
                assert torch.openreg.current_stream() == second
                raise KeyError
        assert torch.openreg.current_stream() == first
        with torch.openreg.stream(None):
            assert torch.openreg.current_stream() == first


def test_the_context_of_a_stream_on_another_device_restores_that_devices_stream():
    outer, inner = torch.openreg.Stream(1), torch.openreg.Stream(1)
    with torch.openreg.device(1):
        torch.openreg.set_stream(outer)
    try:
        with torch.openreg.stream(inner):
            assert torch.openreg.current_stream(1) == inner
        assert torch.openreg.current_stream(1) == outer
        assert torch.openreg.current_device() == 0
    finally:
        torch.openreg.set_stream(torch.openreg.default_stream(1))
        torch.openreg.set_device(0)


def test_set_stream_sets_the_device_too():
    stream = torch.openreg.Stream(1)
    torch.openreg.set_stream(stream)
    try:
        assert torch.openreg.current_device() == 1 and torch.openreg.current_stream() == stream
        torch.openreg.set_stream(None)
        assert torch.openreg.current_stream() == stream
    finally:
        torch.openreg.set_stream(torch.openreg.default_stream(1))
        torch.openreg.set_device(0)


def test_only_openreg_streams_can_be_made_current():
    for wrong in (3, "stream", torch.Stream(stream_id=0, device_index=0, device_type=1)):
        with pytest.raises(TypeError, match="Expected a stream of an openreg device"):
            torch.openreg.set_stream(wrong)
        with pytest.raises(TypeError, match="Expected a stream of an openreg device"):
            torch.openreg.stream(wrong)


def test_the_generic_torch_stream_works_on_every_device(device):
    stream = torch.Stream(device=device)
    with stream:
        result = torch.ones(3, device=device) * 2
        assert torch.openreg.current_stream() == stream
    stream.synchronize()
    assert stream.query() and result.tolist() == [2, 2, 2]


def test_the_pool_hands_out_32_streams_per_priority_and_device_in_turn(device):
    for priority in (0, -1):
        streams = [torch.openreg.Stream(device, priority=priority) for _ in range(64)]
        assert len(set(streams)) == 32
        assert streams[:32] == streams[32:]
        assert torch.openreg.default_stream(device) not in streams


def test_ids_and_handles_are_never_shared_by_two_streams():
    streams = {torch.openreg.Stream(d, priority=p) for d in (0, 1) for p in (0, -1) for _ in range(32)}
    assert len({stream.stream_id for stream in streams}) == len(streams) == 128
    streams |= {torch.openreg.default_stream(d) for d in (0, 1)}
    assert len({stream.openreg_stream for stream in streams}) == len(streams)
    assert all(stream.openreg_stream != 0 for stream in streams)
    one = streams.pop()
    assert one.native_handle == one.openreg_stream


def test_a_stream_of_another_device_cannot_be_made_up(device):
    stream = torch.openreg.Stream(1 - device.index)
    forged = torch.Stream(stream_id=stream.stream_id, device_index=device.index, device_type=stream.device_type)
    with pytest.raises((RuntimeError, ValueError)):
        forged.native_handle


def test_priorities_outside_the_range_count_as_the_nearest():
    least, greatest = torch.openreg.Stream.priority_range()
    assert greatest < 0 <= least
    for priority in (-1000, 1000):
        assert torch.openreg.Stream(1, priority=priority).query()


def test_a_call_returns_before_its_work_is_done(device):
    stream = torch.openreg.Stream(device)
    torch.ones(4, device=device) + 1  # the first call of a kind waits
    with torch.openreg.stream(stream):
        start = time.perf_counter()
        torch.openreg._sleep(BUSY_NS)
        result = torch.ones(4, device=device) + 1
        launched = time.perf_counter() - start
        assert not stream.query()
    stream.synchronize()
    assert stream.query() and launched < BUSY_NS / 1e9 <= time.perf_counter() - start
    assert result.tolist() == [2, 2, 2, 2]


def test_synchronize_waits_for_the_named_device_only(eager):
    with torch.openreg.device(1):
        torch.openreg._sleep(2 * BUSY_NS)
    torch.openreg.synchronize(0)
    assert not torch.openreg.current_stream(1).query()
    torch.openreg.synchronize(1)
    assert torch.openreg.current_stream(1).query()


def test_synchronize_waits_for_every_stream_of_a_device(device):
    streams = [torch.openreg.Stream(device) for _ in range(3)]
    for stream in streams:
        with torch.openreg.stream(stream):
            torch.openreg._sleep(BUSY_NS // 2)
    torch.openreg.synchronize(device)
    assert all(stream.query() for stream in streams)


def test_a_stream_waits_for_another_ones_work(device):
    producer, consumer = torch.openreg.Stream(device), torch.openreg.Stream(device)
    value = torch.zeros(8, device=device)
    torch.openreg.synchronize(device)
    with torch.openreg.stream(producer):
        torch.openreg._sleep(BUSY_NS)
        value.fill_(7)
    consumer.wait_stream(producer)
    with torch.openreg.stream(consumer):
        result = value + 1
    consumer.synchronize()
    assert result.tolist() == [8] * 8


def test_a_stream_waits_for_an_event_of_another_device():
    producer, consumer = torch.openreg.Stream(1), torch.openreg.Stream(0)
    value = torch.zeros(8, device="openreg:1")
    torch.openreg.synchronize(1)
    with torch.openreg.stream(producer):
        torch.openreg._sleep(BUSY_NS)
        value.fill_(7)
        event = producer.record_event()
    assert isinstance(event, torch.openreg.Event)
    consumer.wait_event(event)
    with torch.openreg.stream(consumer):
        marker = torch.ones(1, device="openreg:0")
    consumer.synchronize()
    assert producer.query() and marker.item() == 1


def test_a_missing_dependency_does_not_wait(eager, device):
    busy, free = torch.openreg.Stream(device), torch.openreg.Stream(device)
    with torch.openreg.stream(busy):
        torch.openreg._sleep(3 * BUSY_NS)
    with torch.openreg.stream(free):
        result = torch.ones(2, device=device) + 1
    free.synchronize()
    assert not busy.query() and result.sum() == 4
    busy.synchronize()


def test_tasks_of_one_stream_run_in_order_from_several_threads(device):
    stream = torch.openreg.Stream(device)
    counter = torch.zeros(1, dtype=torch.int64, device=device)
    torch.openreg.synchronize(device)

    def add_many():
        with torch.openreg.stream(stream):
            for _ in range(200):
                counter.add_(1)

    threads = [threading.Thread(target=add_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.synchronize()
    assert counter.item() == 1600


def test_the_current_stream_is_the_threads_own(device):
    stream = torch.openreg.Stream(device)
    inside, checked = threading.Event(), threading.Event()

    def work():
        with torch.openreg.stream(stream):
            inside.set()
            checked.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    assert torch.openreg.current_stream(device) == torch.openreg.default_stream(device)
    checked.set()
    thread.join()


def test_other_python_threads_run_while_one_synchronizes(device):
    with torch.openreg.device(device):
        torch.openreg._sleep(2 * BUSY_NS)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    torch.openreg.synchronize(device)
    done.set()
    thread.join()
    assert len(ticks) >= 5


def test_backward_uses_the_stream_of_the_forward_and_joins_the_current_one(device):
    stream = torch.openreg.Stream(device)
    weight = torch.ones(4, device=device, requires_grad=True)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        loss = (weight * 3).sum()
    torch.openreg.current_stream(device).wait_stream(stream)
    loss.backward()
    assert weight.grad.tolist() == [3, 3, 3, 3]


def test_record_stream_keeps_memory_until_the_other_stream_is_done(device):
    stream = torch.openreg.Stream(device)
    block = torch.full((1 << 16,), 5.0, device=device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        torch.openreg._sleep(BUSY_NS)
        copied = block.clone()
    block.record_stream(stream)
    del block
    fresh = [torch.zeros(1 << 16, device=device) for _ in range(4)]  # would take the freed block
    stream.synchronize()
    assert copied.eq(5).all() and all(tensor.eq(0).all() for tensor in fresh)


def test_unused_streams_cost_no_threads(python):
    python(
        """
        import os, torch, torch_openreg
        count_threads = lambda: len(os.listdir("/proc/self/task"))
        x = torch.ones(2, device="openreg") + 1
        torch.openreg.synchronize()
        before = count_threads()
        streams = [torch.openreg.Stream(d, priority=p) for d in (0, 1) for p in (0, -1) for _ in range(32)]
        assert count_threads() == before
        with torch.openreg.stream(streams[0]):
            x + 1
        torch.openreg.synchronize()
        assert count_threads() <= before + 1
        """
    )


def test_an_idle_process_uses_no_processor_time(python):
    python(
        """
        import time, torch, torch_openreg
        for i in range(8):
            with torch.openreg.stream(torch.openreg.Stream(i % 2)):
                torch.ones(4, device="openreg") + 1
        torch.openreg.synchronize(0)
        torch.openreg.synchronize(1)
        time.sleep(0.05)
        start = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - start < 0.02, time.process_time() - start
        """
    )


@pytest.mark.parametrize("wait", ["torch.openreg.synchronize()", "stream.synchronize()", "event.synchronize()", "x.item()"])
def test_ctrl_c_ends_a_wait(python, wait):
    python(
        f"""
        import os, signal, threading, time, torch, torch_openreg
        stream = torch.openreg.Stream()
        x = torch.ones(1, device="openreg")
        torch.openreg.synchronize()
        torch.openreg.set_stream(stream)
        for _ in range(300):
            torch.openreg._sleep(10_000_000)  # a waiting thread may run one of these itself, and ends that first
        event = stream.record_event()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.perf_counter()
        try:
            {wait}
        except KeyboardInterrupt:
            assert time.perf_counter() - start < 1.5, time.perf_counter() - start
        else:
            assert False
        os._exit(0)
        """
    )


def test_queued_work_finishes_before_the_process_ends(python):
    result = python(
        """
        import torch, torch_openreg
        torch.openreg._sleep(300_000_000)
        torch.ones(4, device="openreg") + 1
        print("end")
        """
    )
    assert result.stdout == "end\n" and result.stderr == ""


@pytest.mark.parametrize(("schedule", "times"), [("eager", 1), ("random:1", 4)])
def test_a_process_may_end_right_after_a_backward(python, schedule, times):
    for _ in range(times):
        result = python(
            """
            import torch, torch_openreg
            for device in ("openreg:1", "openreg:0"):
                x = torch.ones(16, 16, device=device, requires_grad=True)
                (x @ x).sin().sum().backward()
                x.grad.sum().item()
            """,
            env={"OPENREG_SCHEDULE": schedule},
        )
        assert result.stderr == ""


def test_work_that_outlasts_the_process_is_dropped_with_a_word(python):
    start = time.perf_counter()
    result = python("import torch, torch_openreg\nfor _ in range(40): torch.openreg._sleep(1_000_000_000)")
    assert time.perf_counter() - start < 30
    assert "work that was still queued" in result.stderr


def test_many_streams_share_the_machine(device):
    streams = [torch.openreg.Stream(device, priority=p) for p in (0, -1) for _ in range(32)]
    results = []
    for number, stream in enumerate(streams):
        with torch.openreg.stream(stream):
            results.append(torch.full((16,), number, device=device) * 2)
    torch.openreg.synchronize(device)
    assert [int(result[0]) for result in results] == [2 * number for number in range(64)]


# ---- Handles, priorities, external streams ----------------------------------


def test_a_stream_has_the_priority_that_it_was_asked_for(device):
    least, greatest = torch.openreg.Stream.priority_range()
    for priority in range(greatest, least + 1):
        assert torch.openreg.Stream(device, priority=priority).priority == priority
    assert torch.openreg.Stream(device, priority=-1000).priority == greatest
    assert torch.openreg.Stream(device, priority=1000).priority == least
    assert torch.openreg.default_stream(device).priority == 0


def test_handles_pass_to_c_functions(device):
    stream, event = torch.openreg.Stream(device), torch.openreg.Event()
    assert stream._as_parameter_.value == stream.openreg_stream == stream.native_handle
    assert event.openreg_event == 0 and event._as_parameter_.value is None
    event.record(stream)
    assert event.openreg_event != 0 and event._as_parameter_.value == event.openreg_event
    with pytest.raises(NotImplementedError, match="external"):
        torch.openreg.Event(external=True)


@pytest.fixture
def hal():
    """The driver's own table, as a C library has it that was loaded beside torch."""
    torch.openreg.init()
    sys.path.insert(0, str(Path(__file__).parents[1] / "driver"))
    try:
        import hal as module
    finally:
        sys.path.pop(0)
    return module.Driver(torch_openreg._C.driver_info()["path"])


def test_an_external_stream_is_a_stream(hal, device):
    handle = hal.stream(device.index)
    stream = torch.openreg.ExternalStream(handle.value, device)
    try:
        assert isinstance(stream, torch.openreg.Stream) and stream.device == device and stream.openreg_stream == handle.value
        assert stream == torch.openreg.get_stream_from_external(handle.value, device) and stream != torch.openreg.Stream(device)
        assert repr(stream) == f"torch.openreg.ExternalStream(device={device}, openreg_stream={handle.value:#x})"
        value = torch.zeros(8, device=device)
        stream.wait_stream(torch.openreg.current_stream(device))
        with torch.openreg.stream(stream):
            assert torch.openreg.current_stream() == stream and torch.openreg.current_device() == device.index
            torch.openreg._sleep(BUSY_NS)
            value.fill_(3)
            event = stream.record_event()
        assert not stream.query() and not event.query()
        torch.openreg.current_stream(device).wait_event(event)
        assert (value + 1).tolist() == [4] * 8 and stream.query()
        with stream:
            value.add_(1)
            inside = value * 2
        value.record_stream(stream)
        stream.synchronize()
        assert inside.tolist() == [8] * 8
        del value, inside
    finally:
        del stream
    hal.ok(hal.sync(handle)[0])  # it is still there
    hal.ok(hal.stream_destroy(handle))


def test_work_of_the_library_and_of_torch_on_one_stream_runs_in_order(hal, device):
    handle = hal.stream(device.index)
    stream = torch.openreg.ExternalStream(handle.value, device)
    value = torch.zeros(1, device=device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        value.add_(1)
        hal.ok(hal.fill(handle, value.data_ptr(), 0, 4, None))
        value.add_(5)
        seen = value.to("cpu")
    hal.ok(hal.sync(handle)[0])
    assert seen.item() == 5
    hal.ok(hal.stream_destroy(handle))


def test_backward_runs_on_the_external_stream_of_the_forward(hal, device):
    handle = hal.stream(device.index)
    stream = torch.openreg.ExternalStream(handle.value, device)
    weight = torch.ones(4, device=device, requires_grad=True)
    stream.wait_stream(torch.openreg.current_stream(device))
    seen = []
    with torch.openreg.stream(stream):
        product = weight * 3
        product.register_hook(lambda gradient: seen.append(torch.openreg.current_stream(device)))
        product.sum().backward()
    torch.openreg.current_stream(device).wait_stream(stream)
    assert weight.grad.tolist() == [3] * 4 and seen == [stream]
    del product
    torch.openreg.synchronize(device)
    hal.ok(hal.stream_destroy(handle))


def test_what_is_no_stream_of_the_device_is_no_external_stream(hal):
    handle = hal.stream(1)
    with pytest.raises(ValueError, match="is not on openreg:0"):
        torch.openreg.ExternalStream(handle.value, 0)
    with pytest.raises(ValueError, match="knows no stream"):
        torch.openreg.ExternalStream(12345, 0)
    stream = torch.openreg.ExternalStream(handle.value, 1)
    hal.ok(hal.stream_destroy(handle))
    with pytest.raises(ValueError, match="not a live stream"):
        stream.synchronize()
    with pytest.raises(ValueError, match="knows no stream"):
        torch.openreg.ExternalStream(handle.value, 1)


# ---- What is no stream and no event ----------------------------------------


@pytest.mark.parametrize("wrong", [3, 3.5, "openreg", torch.Stream("cpu"), torch.Event("cpu")], ids=["int", "float", "text", "cpu stream", "cpu event"])
def test_waits_and_records_refuse_what_is_no_stream_or_event_of_the_device(wrong):
    stream, event = torch.openreg.Stream(), torch.openreg.Event()
    for refused in (stream.wait_event, stream.record_event):
        with pytest.raises(TypeError, match="Expected an event of an openreg device"):
            refused(wrong)
    for refused in (stream.wait_stream, event.record, event.wait):
        with pytest.raises(TypeError, match="Expected a stream of an openreg device"):
            refused(wrong)


def test_none_is_no_stream_and_no_event_to_wait_for(device):
    stream = torch.openreg.Stream(device)
    for wait in (stream.wait_event, stream.wait_stream):
        with pytest.raises(TypeError, match="Expected a"):
            wait(None)


@pytest.mark.parametrize("kind", [lambda: torch.Event("openreg"), torch.openreg.Event], ids=["torch.Event", "torch.openreg.Event"])
def test_events_and_streams_of_torch_work_with_those_of_the_device(device, kind):
    with torch.openreg.device(device):
        first, second, event = torch.openreg.Stream(device), torch.Stream(device), kind()
        for own, other in ((first, second), (second, first)):
            with own if type(own) is torch.Stream else torch.openreg.stream(own):
                x = torch.ones(4, device=device) + 1
                event.record(stream=own)
                event.record()
            first.record_event(event)  # torch's own takes no subclasses
            other.wait_event(event)
            other.wait_stream(own)
            event.wait(other)
            event.wait()
            with other if type(other) is torch.Stream else torch.openreg.stream(other):
                assert (x * 2).tolist() == [4] * 4


# ---- Autograd and streams, under schedules that run nothing unasked ---------


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream does not match")
@pytest.mark.parametrize("schedule", ["lazy", "random:1", "random:2"])
def test_backward_runs_on_the_streams_of_the_forward_and_joins_at_the_end(device, schedule):
    def step():
        used.clear()
        weight = torch.ones(64, device=device, requires_grad=True)
        outer = torch.openreg.current_stream(device)
        for stream in (first, second):
            stream.wait_stream(outer)
        with torch.openreg.stream(first):
            left = weight * 2
            left.register_hook(lambda gradient: used.__setitem__("left", torch.openreg.current_stream(device)))
            left = left.sin()
        with torch.openreg.stream(second):
            right = weight * 5
            right.register_hook(lambda gradient: used.__setitem__("right", torch.openreg.current_stream(device)))
            right = right.cos()
        outer.wait_stream(first)
        outer.wait_stream(second)
        (left + right).sum().backward()
        return weight.grad  # read on the current stream without another wait

    used = {}
    first, second = torch.openreg.Stream(device), torch.openreg.Stream(device)
    with torch.openreg.device(device):
        step()
        with torch.openreg.schedule(schedule):
            gradient = step()
            result = gradient.cpu()
    weight = torch.ones(64, requires_grad=True)
    ((weight * 2).sin() + (weight * 5).cos()).sum().backward()
    assert torch.allclose(result, weight.grad) and used == {"left": first, "right": second}


def test_the_device_context_of_torch_and_streams_go_together(device):
    stream = torch.openreg.Stream(device)
    with torch.device(device), torch.openreg.stream(stream):
        value = torch.ones(4)
        assert value.device == device and torch.openreg.current_stream() == stream
    stream.synchronize()
    with torch.device("openreg"), torch.openreg.device(device):
        assert torch.ones(1).device == device
