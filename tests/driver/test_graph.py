"""Captures and graphs, on drivers that have them."""

import ctypes as c
import threading

import hal
import pytest


@pytest.fixture(autouse=True)
def needs_graphs(driver):
    state = hal.i32()
    stream = driver.stream()
    entry = driver.stream_capture_info
    if not c.cast(entry, hal.ptr).value or entry(stream, c.byref(state), None) == hal.UNSUPPORTED:
        pytest.skip("this driver has none of the (optional) entries for graphs")


def test_nothing_runs_before_the_launch_and_all_of_it_after(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    for value in range(5):
        tasks.append(driver, stream, log, value)
    graph = driver.end_capture(stream)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == []
    for _ in range(3):
        driver.ok(driver.graph_launch(graph, stream))
    driver.ok(driver.sync(stream)[0])
    assert log.list() == list(range(5)) * 3
    driver.ok(driver.graph_destroy(graph))
    assert driver.graph_destroy(graph) == hal.INVALID_VALUE
    assert driver.graph_launch(graph, stream) == hal.INVALID_VALUE


def test_a_launch_is_in_order_with_its_stream_and_other_streams_launch_it_too(driver, tasks):
    first, second, log = driver.stream(), driver.stream(), tasks.log()
    driver.ok(driver.capture_begin(first, hal.GLOBAL))
    tasks.append(driver, first, log, 1, slowly=True)
    tasks.append(driver, first, log, 2)
    graph = driver.end_capture(first)
    tasks.append(driver, first, log, 0)
    driver.ok(driver.graph_launch(graph, first))
    driver.ok(driver.graph_launch(graph, second))  # waits for the launch on the first stream
    tasks.append(driver, second, log, 3)
    driver.ok(driver.sync(second)[0])
    assert log.list() == [0, 1, 2, 1, 2, 3]


def test_copies_and_fills_are_captured(driver):
    stream, address = driver.stream(), driver.alloc(64)
    driver.write(address, bytes(64))
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    driver.ok(driver.fill(stream, address, 7, 16, None))
    driver.ok(driver.copy(stream, address + 16, 0, address, 0, 8, None))
    graph = driver.end_capture(stream)
    assert driver.read(address, 32) == bytes(32)
    driver.ok(driver.graph_launch(graph, stream))
    driver.ok(driver.sync(stream)[0])
    assert driver.read(address, 32) == bytes([7]) * 24 + bytes(8)


def test_streams_join_by_events_and_are_joined_again(driver, tasks):
    origin, side, log = driver.stream(), driver.stream(), tasks.log()
    assert driver.capture_state(side)[0] == "none"
    driver.ok(driver.capture_begin(origin, hal.GLOBAL))
    tasks.append(driver, origin, log, 0, slowly=True)
    driver.ok(driver.stream_wait_event(side, driver.record(origin)))
    assert driver.capture_state(side) == driver.capture_state(origin)
    tasks.append(driver, side, log, 1, slowly=True)
    driver.ok(driver.stream_wait_event(origin, driver.record(side)))
    tasks.append(driver, origin, log, 2)
    graph = driver.end_capture(origin)
    assert driver.capture_state(side)[0] == "none"
    for _ in range(4):
        driver.ok(driver.graph_launch(graph, origin))
    driver.ok(driver.sync(origin)[0])
    assert log.list() == [0, 1, 2] * 4
    driver.ok(driver.stream_destroy(side))  # the graph does not need it
    driver.ok(driver.graph_launch(graph, origin))
    driver.ok(driver.sync(origin)[0])
    assert log.list() == [0, 1, 2] * 5


def test_a_side_stream_that_is_not_joined_is_named(driver, tasks):
    origin, side = driver.stream(), driver.stream()
    driver.ok(driver.capture_begin(origin, hal.GLOBAL))
    driver.ok(driver.stream_wait_event(side, driver.record(origin)))
    driver.launch(side, tasks.nothing)
    handle = hal.Graph()
    assert driver.capture_end(origin, c.byref(handle)) == hal.CAPTURE
    assert "was forked off the capture and not joined" in driver.message()
    assert str(driver.state(side).stream_id) in driver.message()
    assert driver.capture_state(origin)[0] == driver.capture_state(side)[0] == "none"


ILLEGAL = {
    "synchronize": lambda d, stream, event: d.stream_synchronize(stream, hal.NEVER, None),
    "query": lambda d, stream, event: d.stream_query(stream),
    "destroy": lambda d, stream, event: d.stream_destroy(stream),
    "synchronize the event": lambda d, stream, event: d.event_synchronize(event, hal.NEVER, None),
    "query the event": lambda d, stream, event: d.event_query(event),
    "synchronize the device": lambda d, stream, event: d.device_synchronize(0, hal.NEVER, None),
}


@pytest.mark.parametrize("what", ILLEGAL)
def test_illegal_calls_make_the_capture_invalid_and_leave_the_device_usable(driver, tasks, what):
    stream, log = driver.stream(), tasks.log()
    driver.ok(driver.capture_begin(stream, hal.RELAXED))
    tasks.append(driver, stream, log, 0)
    event = driver.record(stream)
    assert ILLEGAL[what](driver, stream, event) == hal.CAPTURE
    reason = driver.message()
    assert driver.capture_state(stream)[0] == "invalid"
    status = driver.launch_host_func(stream, c.cast(tasks.nothing, hal.ptr), None, 0, None)
    assert status == hal.CAPTURE and reason in driver.message()
    handle = hal.Graph()
    assert driver.capture_end(stream, c.byref(handle)) == hal.CAPTURE
    assert driver.message() == reason
    tasks.append(driver, stream, log, 1)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [1]


def test_an_event_of_the_capture_has_no_time_afterwards_either(driver, tasks):
    stream, other = driver.stream(), driver.stream()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    event = driver.record(stream)
    driver.end_capture(stream)
    assert driver.event_query(event) == hal.CAPTURE
    assert driver.stream_wait_event(other, event) == hal.CAPTURE
    driver.record(other, event)
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))


def test_captures_do_not_mix_with_what_is_outside(driver, tasks):
    capturing, other, outside = driver.stream(), driver.stream(), driver.event()
    driver.launch(other, tasks.nothing)
    driver.record(other, outside)
    handle = hal.Graph()
    driver.ok(driver.capture_begin(capturing, hal.GLOBAL))
    assert driver.stream_wait_event(capturing, outside) == hal.CAPTURE
    assert "outside the capture" in driver.message()
    assert driver.capture_end(capturing, c.byref(handle)) == hal.CAPTURE

    driver.ok(driver.capture_begin(capturing, hal.GLOBAL))
    driver.ok(driver.capture_begin(other, hal.GLOBAL))
    assert driver.stream_wait_event(other, driver.record(capturing)) == hal.CAPTURE
    assert driver.capture_state(capturing)[0] == driver.capture_state(other)[0] == "invalid"
    for stream in (capturing, other):
        assert driver.capture_end(stream, c.byref(handle)) == hal.CAPTURE


def test_an_event_of_several_processes_is_not_recorded_in_a_capture(driver, tasks):
    stream, shared, handle = driver.stream(), hal.Event(), hal.Graph()
    driver.ok(driver.event_create_shared(0, c.byref(shared)))
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    assert driver.event_record(shared, stream) == hal.CAPTURE
    assert "several processes share" in driver.message()
    assert driver.capture_end(stream, c.byref(handle)) == hal.CAPTURE
    driver.ok(driver.event_record(shared, stream))
    driver.ok(driver.event_synchronize(shared, hal.NEVER, None))


def exchange(driver, mode):
    value = hal.i32(mode)
    driver.ok(driver.capture_exchange_mode(c.byref(value)))
    return value.value


def unsafe_status(driver):
    """What an allocation and a query of an unrelated stream return."""
    stream = driver.stream()
    address = hal.ptr()
    statuses = {driver.mem_alloc(0, 4096, c.byref(address)), driver.stream_query(stream)}
    driver.stream_destroy(stream)
    return statuses


def in_thread(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


@pytest.mark.parametrize("mode, own, others", [
    (hal.GLOBAL, hal.CAPTURE, hal.CAPTURE), (hal.THREAD_LOCAL, hal.CAPTURE, hal.OK), (hal.RELAXED, hal.OK, hal.OK)])
def test_modes_keep_threads_from_unsafe_calls(driver, mode, own, others):
    for call, expected in ((lambda: unsafe_status(driver), own), (lambda: in_thread(lambda: unsafe_status(driver)), others)):
        stream, handle = driver.stream(), hal.Graph()
        driver.ok(driver.capture_begin(stream, mode))
        assert call() == {expected}
        assert driver.capture_end(stream, c.byref(handle)) == expected


def test_a_thread_can_relax_itself(driver):
    stream = driver.stream()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    assert exchange(driver, hal.RELAXED) == hal.GLOBAL
    assert unsafe_status(driver) == {hal.OK}
    assert exchange(driver, hal.GLOBAL) == hal.RELAXED

    def careful():
        exchange(driver, hal.THREAD_LOCAL)
        return unsafe_status(driver)

    assert in_thread(careful) == {hal.OK}
    driver.end_capture(stream)


def test_only_the_origin_on_the_thread_that_began_ends_a_capture(driver, tasks):
    stream, other, handle = driver.stream(), driver.stream(), hal.Graph()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    assert driver.capture_begin(stream, hal.GLOBAL) == hal.INVALID_VALUE
    driver.ok(driver.stream_wait_event(other, driver.record(stream)))
    assert driver.capture_end(other, c.byref(handle)) == hal.INVALID_VALUE
    assert in_thread(lambda: driver.capture_end(stream, c.byref(handle))) == hal.INVALID_VALUE
    driver.ok(driver.capture_end(stream, c.byref(handle)))
    assert driver.capture_end(stream, c.byref(handle)) == hal.INVALID_VALUE
    driver.ok(driver.capture_begin(stream, hal.RELAXED))
    assert in_thread(lambda: driver.capture_end(stream, c.byref(handle))) == hal.OK
    assert driver.capture_begin(stream, 9) == hal.INVALID_VALUE


def test_any_thread_drops_a_capture_by_asking_for_no_graph(driver, tasks, cleaned):
    count, clean = cleaned
    stream, side, log = driver.stream(), driver.stream(), tasks.log()
    for invalid in (False, True):
        driver.ok(driver.capture_begin(stream, hal.GLOBAL))
        tasks.append(driver, stream, log, 0, cleanup=clean)
        driver.ok(driver.stream_wait_event(side, driver.record(stream)))
        if invalid:
            assert driver.stream_query(stream) == hal.CAPTURE
        assert driver.capture_end(side, None) == hal.INVALID_VALUE
        assert in_thread(lambda: driver.capture_end(stream, None)) == hal.OK
        assert driver.capture_state(stream)[0] == driver.capture_state(side)[0] == "none" and count == [1 + invalid]
        assert driver.capture_end(stream, None) == hal.INVALID_VALUE
    driver.launch(stream, tasks.nothing)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == []


def test_a_graph_is_not_launched_on_a_capturing_stream_or_another_device(driver, tasks):
    stream, side, handle = driver.stream(), driver.stream(), hal.Graph()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    driver.launch(stream, tasks.nothing)
    graph = driver.end_capture(stream)
    if driver.devices > 1:
        assert driver.graph_launch(graph, driver.stream(1)) == hal.INVALID_VALUE
    driver.ok(driver.capture_begin(side, hal.GLOBAL))
    assert driver.graph_launch(graph, side) == hal.CAPTURE
    assert driver.capture_end(side, c.byref(handle)) == hal.CAPTURE


def test_a_launch_after_an_update_waits_for_the_launches_of_both_graphs(driver, tasks):
    streams, log = [driver.stream() for _ in range(3)], tasks.log()

    def captured(value):
        driver.ok(driver.capture_begin(streams[0], hal.GLOBAL))
        tasks.append(driver, streams[0], log, value, slowly=True)
        tasks.append(driver, streams[0], log, value)
        return driver.end_capture(streams[0])

    graph, source = captured(1), captured(2)
    gates = []
    for stream, launched in zip(streams[1:], (graph, source), strict=True):
        gates.append(tasks.gate(driver, stream))
        driver.ok(driver.graph_launch(launched, stream))
    driver.ok(driver.graph_update(graph, source))
    driver.ok(driver.graph_launch(graph, streams[0]))
    tasks.append(driver, streams[0], log, 3)
    if driver.schedule == "eager":
        gates[0].open()
        driver.ok(driver.sync(streams[1])[0])
        assert driver.stream_synchronize(streams[0], 50_000_000, None) == hal.NOT_READY
        gates[1].open()
    driver.ok(driver.sync(streams[0])[0])
    assert sorted(log.list()[:4]) == [1, 1, 2, 2] and log.list()[4:] == [2, 2, 3]


@pytest.fixture
def cleaned():
    """(counter, cleanup function)"""
    count = [0]

    @c.CFUNCTYPE(None, hal.ptr)
    def clean(_):
        count[0] += 1
    return count, clean


def test_cleanups_run_once_when_the_graph_and_its_launches_are_over(driver, tasks, cleaned):
    count, clean = cleaned
    stream, log = driver.stream(), tasks.log()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    tasks.append(driver, stream, log, 1, cleanup=clean)
    graph = driver.end_capture(stream)
    gate = tasks.gate(driver, stream)
    for _ in range(2):
        driver.ok(driver.graph_launch(graph, stream))
    driver.ok(driver.graph_destroy(graph))
    assert count == [0]
    gate.open()
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [1, 1] and count == [1]


def test_a_capture_that_is_dropped_runs_its_cleanups(driver, tasks, cleaned):
    count, clean = cleaned
    stream, handle = driver.stream(), hal.Graph()
    driver.ok(driver.capture_begin(stream, hal.GLOBAL))
    tasks.append(driver, stream, tasks.log(), 1, cleanup=clean)
    driver.stream_query(stream)
    assert driver.capture_end(stream, c.byref(handle)) == hal.CAPTURE
    assert count == [1]


def test_a_failure_in_a_launch_is_late_and_the_graph_runs_again(driver, tasks):
    origin, side, log = driver.stream(), driver.stream(), tasks.log()
    driver.ok(driver.capture_begin(origin, hal.GLOBAL))
    driver.ok(driver.stream_wait_event(side, driver.record(origin)))
    tasks.fail(driver, side, name=b"broken op")
    driver.ok(driver.stream_wait_event(origin, driver.record(side)))
    tasks.append(driver, origin, log, 1)
    graph = driver.end_capture(origin)
    for _ in range(2):
        driver.ok(driver.graph_launch(graph, origin))
        status, error = driver.sync(origin)
        assert status == hal.LAUNCH_FAILED and error.name == b"broken op"
    assert log.list() == []
    tasks.append(driver, origin, log, 2)
    driver.ok(driver.sync(origin)[0])
    assert log.list() == [2]


def test_shutdown_drops_graphs_and_captures(driver, tasks, cleaned):
    count, clean = cleaned
    first, second = driver.stream(), driver.stream()
    driver.ok(driver.capture_begin(first, hal.GLOBAL))
    tasks.append(driver, first, tasks.log(), 1, cleanup=clean)
    driver.end_capture(first)
    driver.ok(driver.capture_begin(second, hal.GLOBAL))
    tasks.append(driver, second, tasks.log(), 1, cleanup=clean)
    driver.ok(driver.shutdown(hal.NEVER))
    assert count == [2]


def test_update_takes_the_arguments_of_another_capture(driver, tasks):
    stream, log = driver.stream(), tasks.log()

    def capture(*values, name=b"append"):
        driver.ok(driver.capture_begin(stream, hal.GLOBAL))
        for value in values:
            tasks.append(driver, stream, log, value, name=name)
        return driver.end_capture(stream)

    graph, source, longer, other = capture(1, 2), capture(3, 4), capture(5, 6, 7), capture(8, 9, name=b"other")
    driver.ok(driver.graph_launch(graph, stream))
    for different in (longer, other, graph):
        assert driver.graph_update(graph, different) == hal.INVALID_VALUE
    driver.ok(driver.graph_update(graph, source))
    driver.ok(driver.graph_launch(graph, stream))
    assert driver.graph_launch(source, stream) == hal.INVALID_VALUE
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [1, 2, 3, 4]


def test_the_drawing_has_every_operation_and_dependency(driver, tasks, tmp_path):
    origin, side = driver.stream(), driver.stream()
    driver.ok(driver.capture_begin(origin, hal.GLOBAL))
    driver.launch(origin, tasks.nothing, name=b'first "quoted"')
    driver.ok(driver.stream_wait_event(side, driver.record(origin)))
    driver.launch(side, tasks.nothing, name=b"second")
    driver.ok(driver.stream_wait_event(origin, driver.record(side)))
    graph = driver.end_capture(origin)
    driver.ok(driver.graph_dump(graph, str(tmp_path / "graph.dot").encode()))
    text = (tmp_path / "graph.dot").read_text()
    assert r'label="first \"quoted\""' in text and 'label="second"' in text
    assert text.startswith("digraph") and text.count("style=dashed") == 2
    assert driver.graph_dump(graph, str(tmp_path / "missing" / "graph.dot").encode()) == hal.INVALID_VALUE
