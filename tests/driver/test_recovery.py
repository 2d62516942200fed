"""Losing a device and bringing it back: what is dropped, who is told, what goes on, and tasks that do not end. Any driver with recovery."""

import contextlib
import ctypes as c
import threading

import pytest

import conftest
import hal


class GateThenWrite(c.Structure):
    _fields_ = [("entered", c.c_void_p), ("open", c.c_void_p), ("address", c.c_void_p)]


def synchronise_event(driver, event):
    error = hal.Error(struct_size=c.sizeof(hal.Error))
    return driver.event_synchronize(event, hal.NEVER, c.byref(error)), error


def wait_until(condition):
    """Lets other threads run until the condition holds; a test that waits in vain ends with pytest's timeout of the run."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


@contextlib.contextmanager
def threads(*functions):
    """Runs functions on threads of their own, and joins them in the end. Yields the list of their results."""
    results = [None] * len(functions)

    def run(i):
        results[i] = functions[i]()

    crowd = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in crowd:
        thread.start()
    try:
        yield results
    finally:
        for thread in crowd:
            thread.join(60)
    assert not any(thread.is_alive() for thread in crowd)


@contextlib.contextmanager
def closed_gate(driver, tasks, stream, **desc):
    """A task that runs on the stream until the end of the block. Where tasks run only in waits, a thread waits."""
    gate = conftest.GateArgs()
    entered, opened = c.c_uint64(0), c.c_uint64(0)
    gate.entered, gate.open = c.addressof(entered), c.addressof(opened)
    driver.keep.append((entered, opened))
    driver.launch(stream, tasks.library.gate, gate, name=b"gate", **desc)
    waits = [] if driver.schedule == "eager" else [lambda: driver.sync(stream)[0]]
    with threads(*waits) as statuses:
        wait_until(lambda: entered.value)
        try:
            yield statuses
        finally:
            opened.value = 1


def reset(driver, device=0):
    """Until abandoned tasks have ended."""
    wait_until(lambda: driver.device_reset(device) != hal.NOT_READY)
    driver.ok(driver.device_reset(device))


def test_every_entry_that_uses_a_lost_device_names_the_reason(driver, tasks):
    stream, event, address = driver.stream(), driver.event(), driver.alloc(4096)
    recorded = driver.record(stream)
    buffer = c.create_string_buffer(16)
    host = c.cast(buffer, hal.ptr)
    driver.ok(driver.capture_begin(stream, hal.RELAXED))
    tasks.append(driver, stream, tasks.log(), 1)
    graph = driver.end_capture(stream)
    reserved, out = hal.ptr(), hal.ptr()
    driver.ok(driver.mem_reserve(0, 1 << 21, c.byref(reserved)))
    driver.lose(reason=b"it fell off the bus")
    refused = {
        "launch_host_func": lambda: driver.launch_host_func(stream, c.cast(tasks.nothing, hal.ptr), None, 0, None),
        "fill": lambda: driver.fill(stream, address, 0, 16, None),
        "copy": lambda: driver.copy(stream, host, hal.HOST, address, 0, 16, None),
        "event_record": lambda: driver.event_record(event, stream),
        "stream_wait_event": lambda: driver.stream_wait_event(stream, recorded),
        "graph_launch": lambda: driver.graph_launch(graph, stream),
        "mem_alloc": lambda: driver.mem_alloc(0, 4096, c.byref(out)),
        "mem_map": lambda: driver.mem_map(0, reserved, 1 << 16),
        "stream_synchronize": lambda: driver.stream_synchronize(stream, hal.NEVER, None),
        "event_synchronize": lambda: driver.event_synchronize(recorded, hal.NEVER, None),
        "device_synchronize": lambda: driver.device_synchronize(0, hal.NEVER, None),
    }
    for _ in range(2):  # sticky
        for name, call in refused.items():
            assert call() == hal.DEVICE_LOST, name
            assert "device 0 is lost: it fell off the bus" in driver.message(), name
    status, error = driver.sync(stream)
    assert status == error.status == hal.DEVICE_LOST and error.device == 0 and error.message == b"it fell off the bus"
    driver.ok(driver.stream_query(stream))
    driver.ok(driver.event_query(recorded))
    assert driver.state(stream).queued == 0
    driver.ok(driver.mem_free(0, address))
    driver.ok(driver.mem_unreserve(0, reserved))
    driver.ok(driver.event_destroy(event))
    driver.ok(driver.graph_destroy(graph))
    driver.ok(driver.stream_destroy(stream))
    made = driver.stream()
    assert driver.launch_host_func(made, c.cast(tasks.nothing, hal.ptr), None, 0, None) == hal.DEVICE_LOST


def test_a_copy_from_a_lost_device_is_refused_on_the_other_side(driver):
    mine, lost = driver.alloc(64), driver.alloc(64, device=1)
    stream = driver.stream()
    driver.lose(1)
    assert driver.copy(stream, mine, 0, lost, 1, 64, None) == hal.DEVICE_LOST
    driver.ok(driver.fill(stream, mine, 0, 64, None))
    driver.ok(driver.sync(stream)[0])


def test_the_first_reason_stays(driver):
    driver.lose(reason=b"first")
    driver.lose(reason=b"second")
    assert driver.sync(driver.stream())[1].message == b"first"
    reset(driver)
    driver.lose(reason=b"third")
    assert driver.sync(driver.stream())[1].message == b"third"


def test_what_makes_no_sense_is_refused(driver):
    assert driver.device_lose(0, None) == hal.INVALID_VALUE
    assert driver.device_lose(driver.devices, b"x") == hal.INVALID_DEVICE
    assert driver.device_reset(-1) == hal.INVALID_DEVICE
    driver.ok(driver.device_reset(0))  # not lost


def test_queued_tasks_are_dropped_and_cleaned_up(driver, tasks):
    stream, log, cleaned = driver.stream(), tasks.log(), c.c_uint64(0)
    with closed_gate(driver, tasks, stream):
        for _ in range(5):
            driver.launch(stream, tasks.nothing, hal.ptr(c.addressof(cleaned)), cleanup=tasks.count_cleanup)
        tasks.append(driver, stream, log, 1)
        driver.lose()
        assert cleaned.value == 5
        assert driver.sync(stream)[0] == hal.DEVICE_LOST
    reset(driver)
    tasks.append(driver, stream, log, 2)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [2] and cleaned.value == 5


def test_an_abandoned_task_keeps_the_device_from_its_reset(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    with closed_gate(driver, tasks, stream) as statuses:
        tasks.append(driver, stream, log, 1)
        driver.lose()
        for _ in range(3):
            assert driver.device_reset(0) == hal.NOT_READY
        assert driver.sync(stream)[0] == hal.DEVICE_LOST
        assert driver.state(stream).queued == 0
    assert set(statuses) <= {hal.DEVICE_LOST}
    reset(driver)
    tasks.append(driver, stream, log, 2)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [2]


def test_waits_in_other_threads_return(driver, tasks):
    if driver.schedule != "eager":
        pytest.skip("a thread that waits runs the task itself under this schedule, and cannot leave it")
    stream, event = driver.stream(), driver.event()
    with closed_gate(driver, tasks, stream):
        driver.record(stream, event)
        limited = 30 * 10**9  # such a wait leaves running to the worker
        waits = [
            lambda: driver.sync(stream, limited)[0],
            lambda: driver.event_synchronize(event, limited, None),
            lambda: driver.device_synchronize(0, limited, None),
            lambda: driver.sync(stream)[0],
        ]
        with threads(*waits) as statuses:
            threading.Event().wait(0.05)  # most of them sleep by now; those that do not, come too late, which must be right as well
            driver.lose()
        assert statuses == [hal.DEVICE_LOST] * 4
    reset(driver)


def test_events_complete_and_another_device_is_told_once(driver, tasks):
    stream, heir, log = driver.stream(), driver.stream(1), tasks.log()
    with closed_gate(driver, tasks, stream):
        event = driver.record(stream)
        driver.ok(driver.stream_wait_event(heir, event))
        tasks.append(driver, heir, log, 1)
        driver.lose(reason=b"gone")
        driver.ok(driver.event_query(event))
        status, error = driver.sync(heir)
        assert (status, error.device, error.message) == (hal.DEVICE_LOST, 0, b"gone")
        tasks.append(driver, heir, log, 2)
        driver.ok(driver.sync(heir)[0])
        assert synchronise_event(driver, event)[0] == hal.DEVICE_LOST  # still: its device is lost
        assert driver.sync(stream)[0] == hal.DEVICE_LOST
    reset(driver)
    assert log.list() == [2]


def test_an_heir_is_told_after_the_reset_too(driver, tasks):
    stream, heir, log = driver.stream(), driver.stream(1), tasks.log()
    with closed_gate(driver, tasks, stream):
        driver.ok(driver.stream_wait_event(heir, driver.record(stream)))
        tasks.append(driver, heir, log, 1)
        driver.lose(reason=b"gone")
        while driver.stream_query(heir) == hal.NOT_READY:
            pass
    reset(driver)
    assert driver.sync(heir)[1].message == b"gone"
    tasks.append(driver, heir, log, 2)
    driver.ok(driver.sync(heir)[0])
    assert log.list() == [2]


def test_a_lost_stream_stops_waiting_for_a_healthy_one(driver, tasks):
    waiting, other, log = driver.stream(0), driver.stream(1), tasks.log()
    gate = tasks.gate(driver, other)
    tasks.append(driver, other, log, 1)
    driver.ok(driver.stream_wait_event(waiting, driver.record(other)))
    tasks.append(driver, waiting, log, 2)
    driver.lose(0)
    assert driver.sync(waiting)[0] == hal.DEVICE_LOST
    reset(driver, 0)
    tasks.append(driver, waiting, log, 3)
    driver.ok(driver.sync(waiting)[0])
    gate.open()
    driver.ok(driver.sync(other)[0])
    assert sorted(log.list()) == [1, 3]


def test_other_streams_of_the_device_do_not_wait_for_its_slot(start_sim, tasks):
    driver = start_sim(compute_units=1)
    hung, behind, cleaned = driver.stream(), driver.stream(), c.c_uint64(0)
    with closed_gate(driver, tasks, hung):
        driver.launch(behind, tasks.nothing, hal.ptr(c.addressof(cleaned)), cleanup=tasks.count_cleanup)
        driver.lose()
        assert cleaned.value == 1 and driver.sync(behind)[0] == hal.DEVICE_LOST
    reset(driver)
    driver.launch(behind, tasks.nothing)
    driver.ok(driver.sync(behind)[0])


@pytest.mark.parametrize("schedule", ["eager", "lazy"])
def test_a_launch_that_waits_for_room_is_refused(start_sim, tasks, schedule):
    driver = start_sim(queue_bytes="4KiB", schedule=schedule)
    stream, launches, entered, opened = driver.stream(), c.c_uint64(0), c.c_uint64(0), c.c_uint64(0)
    driver.launch(stream, tasks.library.gate, conftest.GateArgs(c.addressof(entered), c.addressof(opened)))

    def fill_queue():
        while (status := driver.launch_host_func(stream, c.cast(tasks.nothing, hal.ptr), None, 0, None)) == hal.OK:
            launches.value += 1
        return status

    with threads(fill_queue) as statuses:
        try:
            wait_until(lambda: launches.value >= 62 and entered.value)  # the next finds no room
            driver.lose()
        finally:
            opened.value = 1
    assert statuses == [hal.DEVICE_LOST] and launches.value == 63
    reset(driver)
    driver.launch(stream, tasks.nothing)
    driver.ok(driver.sync(stream)[0])


def test_memory_that_is_freed_under_an_abandoned_task_takes_its_writes(driver, tasks):
    stream, address = driver.stream(), driver.alloc(1 << 16)
    entered, opened = c.c_uint64(0), c.c_uint64(0)
    args = GateThenWrite(c.addressof(entered), c.addressof(opened), address + driver.delta())
    driver.launch(stream, tasks.gate_then_write, args)
    with threads(*([] if driver.schedule == "eager" else [lambda: driver.sync(stream)[0]])):
        wait_until(lambda: entered.value)
        driver.lose()
        driver.ok(driver.mem_free(0, address))
        opened.value = 1
    reset(driver)
    again = driver.alloc(1 << 16)
    assert again == address and driver.read(again, 1) == b"\0"


def test_memory_and_handles_survive(driver, tasks):
    stream, event, address = driver.stream(), driver.event(timing=True), driver.alloc(4096)
    free = driver.memory()[0]
    driver.lose()
    reset(driver)
    assert driver.memory()[0] == free
    driver.ok(driver.fill(stream, address, 9, 4096, None))
    driver.ok(driver.event_record(event, stream))
    driver.ok(synchronise_event(driver, event)[0])
    assert driver.read(address, 4) == b"\x09" * 4


def test_a_graph_runs_again_after_the_reset(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    driver.ok(driver.capture_begin(stream, hal.RELAXED))
    tasks.append(driver, stream, log, 1)
    graph = driver.end_capture(stream)
    driver.ok(driver.graph_launch(graph, stream))
    driver.ok(driver.sync(stream)[0])
    driver.lose()
    assert driver.graph_launch(graph, stream) == hal.DEVICE_LOST
    reset(driver)
    for _ in range(2):
        driver.ok(driver.graph_launch(graph, stream))
        driver.ok(driver.sync(stream)[0])
    assert log.list() == [1, 1, 1]


def test_a_capturing_device_is_not_reset(driver, tasks):
    stream = driver.stream()
    driver.ok(driver.capture_begin(stream, hal.RELAXED))
    driver.lose()
    assert driver.device_reset(0) == hal.INVALID_VALUE and "being captured" in driver.message()
    assert driver.launch_host_func(stream, c.cast(tasks.nothing, hal.ptr), None, 0, None) == hal.DEVICE_LOST
    driver.end_capture(stream)
    reset(driver)


def test_shutdown_of_a_lost_device(stopped_driver, tasks):
    d = stopped_driver.start(**stopped_driver.options)
    stream = d.stream()
    tasks.append(d, stream, tasks.log(), 1)
    d.lose()
    assert d.sync(stream)[0] == hal.DEVICE_LOST
    d.ok(d.shutdown(hal.NEVER))
    d.start(**stopped_driver.options)
    log, stream = tasks.log(), d.stream()
    tasks.append(d, stream, log, 1)
    d.ok(d.sync(stream)[0])
    assert log.list() == [1]
    d.ok(d.shutdown(hal.NEVER))
