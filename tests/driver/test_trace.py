"""Trace records: what a sink is told of calls and operations, under every schedule. Any driver that keeps a trace."""

import ctypes as c
import mmap
import threading

import hal
import pytest


class TraceLog(c.Structure):
    _fields_ = [("count", c.c_uint64), ("threads", c.c_uint64 * 4096), ("records", hal.TraceRecord * 4096)]


class Trace:
    """What the sink has been given so far."""

    def __init__(self, driver, tasks):
        self.driver, self.tasks, self.log = driver, tasks, TraceLog()
        driver.keep.append(self.log)

    def __enter__(self):
        self.driver.ok(self.driver.trace_exchange(c.cast(self.tasks.keep_record, hal.ptr), c.addressof(self.log)))
        return self

    def __exit__(self, *_):
        self.driver.ok(self.driver.trace_exchange(None, None))

    @property
    def records(self):
        return list(self.log.records[: self.log.count])

    def calls(self, *kinds):
        return [r for r in self.records if not r.operation and (not kinds or r.kind in kinds)]

    def operations(self, *kinds):
        return [r for r in self.records if r.operation and (not kinds or r.kind in kinds)]


@pytest.fixture
def driver(driver):
    entry = driver.trace_exchange
    if not c.cast(entry, hal.ptr).value or entry(None, None) == hal.UNSUPPORTED:
        pytest.skip("this driver has no (optional) trace_exchange")
    return driver


@pytest.fixture
def trace(driver, tasks):
    return Trace(driver, tasks)


def now(driver):
    clock = hal.u64()
    driver.ok(driver.device_clock(0, c.byref(clock)))
    return clock.value


def test_a_launch_has_a_call_and_an_operation_with_one_correlation(driver, tasks, trace):
    stream = driver.stream(1)
    begin = now(driver)
    with trace:
        for tag in (7, 8):
            driver.launch(stream, tasks.nothing, name=b"work", tag=tag)
        driver.ok(driver.sync(stream)[0])
    end = now(driver)
    calls, operations = trace.calls(hal.LAUNCH), trace.operations()
    assert [(r.tag, r.name, r.kind) for r in calls] == [(r.tag, r.name, r.kind) for r in operations] == [
        (7, b"work", hal.LAUNCH), (8, b"work", hal.LAUNCH)]
    assert [r.correlation for r in calls] == [r.correlation for r in operations]
    assert 0 != calls[0].correlation != calls[1].correlation
    assert {(r.device, r.stream_id, r.status, r.cause, r.struct_size) for r in calls + operations} == {
        (1, driver.state(stream).stream_id, hal.OK, 0, c.sizeof(hal.TraceRecord))}
    for record in trace.records:
        assert begin <= record.begin_ns <= record.end_ns <= end
    for call, operation in zip(calls, operations):
        assert call.begin_ns <= operation.begin_ns
    assert operations[0].end_ns <= operations[1].begin_ns


def test_the_call_is_told_on_its_thread_before_it_returns(driver, tasks, trace):
    stream = driver.stream()
    with trace:
        driver.ok(driver.event_destroy(driver.record(stream)))
        driver.launch(stream, tasks.nothing)
        calls = trace.calls()
        assert [r.kind for r in calls] == [hal.RECORD, hal.LAUNCH]
        driver.ok(driver.sync(stream)[0])
    told = {trace.log.threads[i] for i, record in enumerate(trace.records) if not record.operation}
    assert told == {threading.get_native_id()}


def test_the_operation_is_told_before_its_completion_shows(driver, tasks, trace):
    stream = driver.stream()
    with trace:
        for count in range(1, 50):
            driver.launch(stream, tasks.nothing)
            event = driver.record(stream)
            while driver.event_query(event) == hal.NOT_READY:
                pass
            assert len(trace.operations(hal.RECORD)) == len(trace.operations(hal.LAUNCH)) == count
            driver.ok(driver.event_destroy(event))


def test_copies_and_fills_say_what_they_move(driver, tasks, trace):
    stream, a, b = driver.stream(), driver.alloc(4096), driver.alloc(4096, 1)
    host = c.create_string_buffer(64)
    with trace:
        driver.ok(driver.fill(stream, a + 16, 7, 100, None))
        driver.ok(driver.copy(stream, b, 1, a, 0, 64, c.byref(driver.desc(name=b"peer", tag=5))))
        driver.ok(driver.copy(driver.stream(1), c.cast(host, hal.ptr), hal.HOST, b, 1, 32, None))
        driver.ok(driver.copy(stream, a, 0, a, 0, 0, None))
        for device in (0, 1):
            driver.ok(driver.device_synchronize(device, hal.NEVER, None))
    for records in (trace.calls(hal.FILL), trace.operations(hal.FILL)):
        assert [(r.name, r.bytes, r.address, r.dst_device, r.src_device) for r in records] == [(b"fill", 100, a + 16, 0, hal.HOST)]
    expected = {(b"peer", 5, 64, b, 1, 0), (b"copy", 0, 32, c.addressof(host), hal.HOST, 1)}
    for records in (trace.calls(hal.COPY), trace.operations(hal.COPY)):
        assert {(r.name, r.tag, r.bytes, r.address, r.dst_device, r.src_device) for r in records if r.bytes} == expected
        assert len(records) == 3  # the one of 0 bytes, too


def test_a_wait_names_the_record_that_it_waits_for(driver, tasks, trace):
    producer, consumer = driver.stream(), driver.stream(1)
    with trace:
        gate = tasks.gate(driver, producer)
        driver.launch(producer, tasks.nothing, name=b"produce")
        event = driver.record(producer)
        driver.ok(driver.stream_wait_event(consumer, event))
        driver.launch(consumer, tasks.nothing, name=b"consume")
        gate.open()
        driver.ok(driver.sync(consumer)[0])
    record, = trace.operations(hal.RECORD)
    assert record.correlation == trace.calls(hal.RECORD)[0].correlation
    wait, = trace.operations(hal.WAIT)
    assert wait.cause == trace.calls(hal.WAIT)[0].cause == record.correlation
    assert wait.stream_id == driver.state(consumer).stream_id and wait.device == 1
    produce, = [r for r in trace.operations() if r.name == b"produce"]
    consume, = [r for r in trace.operations() if r.name == b"consume"]
    assert produce.end_ns <= record.end_ns <= wait.end_ns <= consume.begin_ns
    assert wait.begin_ns <= produce.end_ns  # the stream was ready before the gate opened
    driver.ok(driver.event_destroy(event))


def test_waits_that_need_no_place_in_the_queue_are_told_too(driver, tasks, trace):
    stream, other, event = driver.stream(), driver.stream(), driver.event()
    with trace:
        driver.ok(driver.stream_wait_event(stream, event))  # never recorded
        driver.record(other, event)
        driver.ok(driver.sync(other)[0])
        driver.ok(driver.stream_wait_event(stream, event))  # complete
        driver.ok(driver.stream_wait_event(other, event))  # of the stream itself
        driver.ok(driver.sync(stream)[0])
    record, = trace.operations(hal.RECORD)
    waits = trace.operations(hal.WAIT)
    assert [w.cause for w in waits] == [0, record.correlation, record.correlation]
    assert [w.correlation for w in waits] == [w.correlation for w in trace.calls(hal.WAIT)]


def test_memory_and_synchronisation_are_calls_only(driver, trace):
    with trace:
        address = driver.alloc(5000, 1)
        driver.ok(driver.mem_free(1, address))
        block = hal.ptr()
        driver.ok(driver.host_alloc(100, c.byref(block)))
        driver.ok(driver.host_free(block))
        driver.ok(driver.device_synchronize(1, hal.NEVER, None))
        stream = driver.stream()
        event = driver.record(stream)
        driver.ok(driver.sync(stream)[0])
        driver.ok(driver.event_synchronize(event, hal.NEVER, None))
        assert driver.mem_free(1, address) == hal.INVALID_VALUE
    assert trace.operations(hal.ALLOC, hal.FREE, hal.SYNC) == []
    told = [(r.name, r.device, r.bytes, r.address, r.status) for r in trace.calls(hal.ALLOC, hal.FREE)]
    pages = -(-5000 // mmap.PAGESIZE) * mmap.PAGESIZE
    assert told == [(b"mem_alloc", 1, pages, address, hal.OK), (b"mem_free", 1, pages, address, hal.OK), (b"host_alloc", -1, 100, block.value, hal.OK),
                    (b"host_free", -1, 100, block.value, hal.OK), (b"mem_free", 1, 0, address, hal.INVALID_VALUE)]
    number = driver.state(stream).stream_id
    assert [(r.name, r.device, r.stream_id) for r in trace.calls(hal.SYNC)] == [
        (b"device_synchronize", 1, 0), (b"stream_synchronize", 0, number), (b"event_synchronize", 0, number)]


def test_a_call_that_fails_is_told_with_its_status(driver, tasks, trace):
    with trace:
        assert driver.launch_host_func(None, c.cast(tasks.nothing, hal.ptr), None, 0, None) == hal.INVALID_VALUE
        assert driver.fill(driver.stream(), 4096, 0, 8, None) == hal.INVALID_VALUE
    assert [(r.kind, r.status, r.operation, r.device) for r in trace.records] == [
        (hal.LAUNCH, hal.INVALID_VALUE, 0, -1), (hal.FILL, hal.INVALID_VALUE, 0, 0)]


def test_failed_and_skipped_operations_say_so(driver, tasks, trace):
    stream, other = driver.stream(), driver.stream()
    with trace:
        tasks.fail(driver, stream, name=b"bad")
        driver.launch(stream, tasks.nothing, name=b"skipped")
        event = driver.record(stream)
        driver.ok(driver.stream_wait_event(other, event))
        driver.launch(other, tasks.nothing, name=b"skipped as well")
        assert driver.sync(other)[0] == hal.LAUNCH_FAILED
        driver.sync(stream)
        driver.launch(stream, tasks.nothing, name=b"good")
        driver.ok(driver.sync(stream)[0])
    status = {r.name: r.status for r in trace.operations()}
    assert status == {b"bad": hal.LAUNCH_FAILED, b"skipped": hal.LAUNCH_FAILED, b"event_record": hal.LAUNCH_FAILED,
                      b"stream_wait_event": hal.LAUNCH_FAILED, b"skipped as well": hal.LAUNCH_FAILED, b"good": hal.OK}


def test_operations_queued_before_the_trace_are_told_and_none_after_it(driver, tasks, trace):
    stream = driver.stream()
    gate = tasks.gate(driver, stream)
    driver.launch(stream, tasks.nothing, name=b"before")
    event = driver.record(stream)
    with trace:
        driver.launch(stream, tasks.nothing, name=b"inside")
        driver.ok(driver.stream_wait_event(driver.stream(), event))
        gate.open()
        driver.ok(driver.sync(stream)[0])
    driver.launch(stream, tasks.nothing, name=b"after")
    driver.ok(driver.sync(stream)[0])
    operations = [r for r in trace.operations() if r.name != b"gate"]
    assert [r.name for r in operations if r.kind != hal.WAIT] == [b"before", b"event_record", b"inside"]
    numbers = [r.correlation for r in operations]
    assert len(set(numbers)) == len(numbers) and 0 not in numbers
    assert all(r.begin_ns <= r.end_ns for r in operations)


def test_tasks_queued_inside_run_after_the_trace_without_a_record(driver, tasks, trace):
    stream = driver.stream()
    gate = tasks.gate(driver, stream)
    with trace:
        for _ in range(20):
            driver.launch(stream, tasks.nothing)
    count = len(trace.records)
    gate.open()
    driver.ok(driver.sync(stream)[0])
    assert len(trace.records) == count


def test_the_sink_changes_while_threads_give_records(driver, tasks):
    traces = [Trace(driver, tasks), Trace(driver, tasks)]
    done = threading.Event()

    def feed():
        stream = driver.stream()
        while not done.is_set():
            driver.launch(stream, tasks.nothing)
            driver.ok(driver.sync(stream)[0])

    threads = [threading.Thread(target=feed) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(100):
            current, other = traces[turn % 2], traces[(turn + 1) % 2]
            with current:
                seen = current.log.count, other.log.count  # nobody is in the other any more
                while current.log.count < seen[0] + 5:
                    pass
                assert other.log.count == seen[1]
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_sink_cannot_replace_itself(driver, tasks):
    answers = []

    @c.CFUNCTYPE(None, hal.ptr, c.POINTER(hal.TraceRecord))
    def sink(_, record):
        answers.append(driver.trace_exchange(None, None))

    driver.ok(driver.trace_exchange(c.cast(sink, hal.ptr), None))
    stream = driver.stream()
    driver.launch(stream, tasks.nothing)
    driver.ok(driver.sync(stream)[0])
    driver.ok(driver.trace_exchange(None, None))
    assert set(answers) == {hal.INVALID_VALUE} and len(answers) >= 3


def test_a_graph_launch_is_one_call_and_its_operations(driver, tasks, trace):
    stream, side, other = driver.stream(), driver.stream(), driver.stream()
    with trace:
        driver.ok(driver.capture_begin(stream, hal.GLOBAL))
        driver.launch(stream, tasks.nothing, name=b"first", tag=1)
        fork = driver.record(stream)
        driver.ok(driver.stream_wait_event(side, fork))
        driver.launch(side, tasks.nothing, name=b"second", tag=2)
        join = driver.record(side)
        driver.ok(driver.stream_wait_event(stream, join))
        graph = driver.end_capture(stream)
        assert trace.operations() == []
        captured = len(trace.records)
        driver.ok(driver.graph_launch(graph, stream))
        driver.ok(driver.sync(stream)[0])
        first = trace.operations()
        driver.ok(driver.graph_launch(graph, other))
        driver.ok(driver.sync(other)[0])
    assert [r.kind for r in trace.calls()[:captured]] == [hal.LAUNCH, hal.RECORD, hal.WAIT, hal.LAUNCH, hal.RECORD, hal.WAIT]
    calls = trace.calls(hal.GRAPH)
    assert [r.stream_id for r in calls] == [driver.state(stream).stream_id, driver.state(other).stream_id]
    assert {r.correlation for r in first} == {calls[0].correlation}
    assert sorted(r.name for r in first) == [b"event_record"] * 2 + [b"first", b"second"] + [b"stream_wait_event"] * 2
    assert {r.tag for r in first if r.kind == hal.LAUNCH} == {1, 2}
    assert {r.cause for r in first if r.kind == hal.WAIT} == {calls[0].correlation}
    second = [r for r in trace.operations() if r.correlation == calls[1].correlation]
    assert len(second) == len(first) + 1  # another stream waits for the launch before
    assert {r.cause for r in second if r.kind == hal.WAIT} == {calls[0].correlation, calls[1].correlation}
    driver.ok(driver.graph_destroy(graph))


@pytest.mark.parametrize("schedule", ["lazy", "random:1"])
def test_dropped_tasks_are_told_and_shutdown_ends_the_trace(start_sim, tasks, schedule):
    d = start_sim(schedule=schedule)
    stream, trace = d.stream(), Trace(d, tasks)
    trace.__enter__()
    for _ in range(3):
        d.launch(stream, tasks.nothing, name=b"dropped")
    d.record(stream)
    assert d.shutdown(0) == hal.NOT_READY
    assert [(r.name, r.status) for r in trace.operations()] == [(b"dropped", hal.LAUNCH_FAILED)] * 3 + [(b"event_record", hal.LAUNCH_FAILED)]
    assert [r.correlation for r in trace.operations()] == [r.correlation for r in trace.calls()]
    start_sim(schedule=schedule)
    fresh, count = d.stream(), len(trace.records)
    d.launch(fresh, tasks.nothing)
    d.ok(d.sync(fresh)[0])
    assert len(trace.records) == count
    assert d.trace_exchange(None, None) == hal.OK
