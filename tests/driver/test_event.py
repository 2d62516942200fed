"""Events: versions, waits, timing, destruction. Any driver."""

import ctypes as c
import time

import hal


def elapsed(driver, start, end):
    out = c.c_int64(-77)
    return driver.event_elapsed(start, end, c.byref(out)), out.value


def test_an_event_without_a_record_is_complete(driver):
    event, stream = driver.event(), driver.stream()
    driver.ok(driver.event_query(event))
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    driver.ok(driver.stream_wait_event(stream, event))
    driver.ok(driver.sync(stream)[0])


def test_synchronize_waits_for_what_is_before_the_record(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    for value in range(10):
        tasks.append(driver, stream, log, value, slowly=True)
    event = driver.record(stream)
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    assert log.list() == list(range(10))
    driver.ok(driver.event_query(event))


def test_event_means_its_latest_record(driver, tasks):
    first, second, event = driver.stream(), driver.stream(), driver.event()
    driver.record(first, event)
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    gate = tasks.gate(driver, second)
    for _ in range(3):
        driver.launch(second, tasks.nothing)
    driver.record(second, event)  # complete before, pending now
    assert driver.event_query(event) == hal.NOT_READY
    if driver.schedule == "eager":
        assert driver.event_synchronize(event, 5_000_000, None) == hal.NOT_READY
    driver.record(first, event)  # recorded again before it completed; means the first stream again
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    if driver.schedule == "eager":
        assert driver.stream_query(second) == hal.NOT_READY
    gate.open()
    driver.ok(driver.sync(second)[0])


def test_wait_means_the_record_at_the_call(driver, tasks):
    producer, late, consumer, log = driver.stream(), driver.stream(), driver.stream(), tasks.log()
    gate, late_gate = tasks.gate(driver, producer), tasks.gate(driver, late)
    tasks.append(driver, producer, log, 1)
    event = driver.record(producer)
    driver.ok(driver.stream_wait_event(consumer, event))
    tasks.append(driver, consumer, log, 2)
    tasks.append(driver, late, log, 3)
    driver.record(late, event)  # does not move the wait
    if driver.schedule == "eager":
        time.sleep(0.02)
        assert log.list() == []
    gate.open()
    driver.ok(driver.sync(consumer)[0])
    if driver.schedule != "random":
        assert log.list() == [1, 2]
    late_gate.open()
    driver.ok(driver.sync(late)[0])
    assert [v for v in log.list() if v != 3] == [1, 2]


def test_wait_across_devices(driver, tasks):
    first, second, log = driver.stream(0), driver.stream(1), tasks.log()
    gate = tasks.gate(driver, first)
    tasks.append(driver, first, log, 1, slowly=True)
    event = driver.record(first, driver.event(1))
    driver.ok(driver.stream_wait_event(second, event))
    tasks.append(driver, second, log, 2)
    gate.open()
    driver.ok(driver.device_synchronize(1, hal.NEVER, None))
    assert log.list() == [1, 2]


def test_a_chain_of_waits_through_many_streams(driver, tasks):
    log, streams = tasks.log(), [driver.stream(i % driver.devices) for i in range(100)]
    event = None
    for value, stream in enumerate(streams):
        if event:
            driver.ok(driver.stream_wait_event(stream, event))
        tasks.append(driver, stream, log, value)
        event = driver.record(stream)
    driver.ok(driver.sync(streams[-1])[0])
    assert log.list() == list(range(100))


def test_waits_both_ways(driver, tasks):
    first, second, log = driver.stream(), driver.stream(), tasks.log()
    for value in range(0, 100, 2):
        tasks.append(driver, first, log, value)
        driver.ok(driver.stream_wait_event(second, driver.record(first)))
        tasks.append(driver, second, log, value + 1)
        driver.ok(driver.stream_wait_event(first, driver.record(second)))
    driver.ok(driver.sync(first)[0])
    assert log.list() == list(range(100))


def test_event_destroyed_while_queued(driver, tasks):
    producer, consumer, log = driver.stream(), driver.stream(), tasks.log()
    gate = tasks.gate(driver, producer)
    tasks.append(driver, producer, log, 1)
    event = driver.record(producer)
    driver.ok(driver.stream_wait_event(consumer, event))
    driver.ok(driver.event_destroy(event))
    assert driver.event_query(event) == hal.INVALID_VALUE
    tasks.append(driver, consumer, log, 2)
    gate.open()
    driver.ok(driver.sync(consumer)[0])
    assert log.list() == [1, 2]


def test_event_outlives_its_stream(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    tasks.append(driver, stream, log, 1, slowly=True)
    event = driver.record(stream)
    driver.ok(driver.stream_destroy(stream))
    driver.ok(driver.event_synchronize(event, hal.NEVER, None))
    assert log.list() == [1]
    waiting = driver.stream()
    driver.ok(driver.stream_wait_event(waiting, event))
    driver.ok(driver.sync(waiting)[0])


def test_elapsed_measures_the_work_between(driver):
    stream, start, end = driver.stream(), driver.event(timing=True), driver.event(timing=True)
    driver.record(stream, start)
    driver.call(stream, lambda: time.sleep(0.02))
    driver.record(stream, end)
    driver.ok(driver.event_synchronize(end, hal.NEVER, None))
    status, nanoseconds = elapsed(driver, start, end)
    assert status == hal.OK and nanoseconds >= 20_000_000
    assert elapsed(driver, end, start) == (hal.OK, -nanoseconds)
    assert elapsed(driver, end, end) == (hal.OK, 0)


def test_elapsed_refuses_what_was_not_measured(driver):
    stream, timed, other, plain = driver.stream(), driver.event(timing=True), driver.event(timing=True), driver.event()
    driver.record(stream, timed)
    driver.record(stream, plain)
    driver.ok(driver.sync(stream)[0])
    assert elapsed(driver, timed, plain) == (hal.INVALID_VALUE, -77) and "without timing" in driver.message()
    assert elapsed(driver, timed, other) == (hal.INVALID_VALUE, -77) and "never recorded" in driver.message()


def test_elapsed_refuses_two_devices(driver):
    events = [driver.event(device, timing=True) for device in (0, 1)]
    for device, event in enumerate(events):
        driver.record(driver.stream(device), event)
        driver.ok(driver.device_synchronize(device, hal.NEVER, None))
    assert elapsed(driver, *events) == (hal.INVALID_VALUE, -77)


def test_elapsed_of_a_pending_event_is_not_ready(driver, tasks):
    stream, start, end = driver.stream(), driver.event(timing=True), driver.event(timing=True)
    driver.record(stream, start)
    gate = tasks.gate(driver, stream)
    driver.record(stream, end)
    assert elapsed(driver, start, end) == (hal.NOT_READY, -77)
    gate.open()
    driver.ok(driver.sync(stream)[0])
    assert elapsed(driver, start, end)[0] == hal.OK


def test_many_events(driver):
    stream = driver.stream()
    events = [driver.event() for _ in range(3000)]
    for event in events:
        driver.record(stream, event)
    driver.ok(driver.sync(stream)[0])
    assert all(driver.event_query(event) == hal.OK for event in events)
    for event in events:
        driver.ok(driver.event_destroy(event))
