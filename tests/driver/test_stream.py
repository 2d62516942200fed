"""Streams: creating, querying, waiting with limits, destroying. Any driver."""

import ctypes as c
import os
import threading
import time

import pytest

import hal


def test_a_new_stream_is_done(driver):
    stream = driver.stream()
    driver.ok(driver.stream_query(stream))
    driver.ok(driver.sync(stream)[0])
    state = driver.state(stream)
    assert (state.device, state.queued, state.running, state.running_for_ns) == (0, 0, b"", 0)


def test_ids_are_never_shared_or_reused(driver):
    ids = set()
    for round in range(3):
        streams = [driver.stream(device) for device in range(driver.devices) for _ in range(5)]
        ids |= {driver.state(stream).stream_id for stream in streams}
        for stream in streams:
            driver.ok(driver.stream_destroy(stream))
    assert len(ids) == 15 * driver.devices


@pytest.mark.parametrize("priority", [-2**31, -100, -1, 0, 1, 2**31 - 1])
def test_priorities_are_clamped(driver, priority):
    info = driver.info()
    got = driver.state(driver.stream(0, priority)).priority
    assert got == min(max(priority, info.priority_greatest), info.priority_least)


def test_pending_work_is_not_ready(driver, tasks):
    stream, other = driver.stream(), driver.stream()
    gate = tasks.gate(driver, stream)
    for _ in range(3):
        driver.launch(stream, tasks.nothing)
    if driver.schedule == "eager":
        start = time.monotonic()
        assert driver.stream_query(stream) == hal.NOT_READY
        assert driver.sync(stream, 0)[0] == hal.NOT_READY
        assert driver.sync(stream, 20_000_000)[0] == hal.NOT_READY
        assert time.monotonic() - start >= 0.02
        assert driver.device_synchronize(0, 1_000_000, None) == hal.NOT_READY
        driver.launch(other, tasks.nothing)
        driver.ok(driver.sync(other)[0])  # other streams go on
    else:
        assert driver.state(stream).queued == 3
        assert driver.stream_query(stream) == hal.NOT_READY  # one of three has run
    gate.open()
    driver.ok(driver.sync(stream)[0])
    driver.ok(driver.stream_query(stream))


def test_info_names_the_running_task(driver, tasks):
    stream = driver.stream()
    seen = threading.Event()
    release = threading.Event()
    driver.call(stream, lambda: (seen.set(), release.wait(20)), name=b"long_task")
    driver.launch(stream, tasks.nothing, name=b"next_task")
    waiter = threading.Thread(target=lambda: driver.sync(stream))
    waiter.start()
    assert seen.wait(20)
    time.sleep(0.03)
    state = driver.state(stream)
    assert (state.running, state.queued) == (b"long_task", 2) and 1_000_000 < state.running_for_ns < 20 * 10**9
    release.set()
    waiter.join()
    assert driver.state(stream).queued == 0


def test_polling_ends(driver, tasks):
    first, second, log = driver.stream(), driver.stream(), tasks.log()
    for value in range(20):
        tasks.append(driver, first, log, value)
    event = driver.record(first)
    driver.ok(driver.stream_wait_event(second, event))
    tasks.append(driver, second, log, 99)
    deadline = time.monotonic() + 20
    while (status := driver.stream_query(second)) == hal.NOT_READY:
        assert time.monotonic() < deadline
    assert status == hal.OK and log.list() == [*range(20), 99]
    last = driver.record(second)
    while driver.event_query(last) == hal.NOT_READY:
        assert time.monotonic() < deadline
    driver.launch(second, tasks.nothing)
    while driver.device_synchronize(0, 0, None) == hal.NOT_READY:
        assert time.monotonic() < deadline
    driver.launch(second, tasks.nothing)
    while driver.sync(second, 0)[0] == hal.NOT_READY:
        assert time.monotonic() < deadline


def test_destroyed_streams_finish_their_work(driver, tasks):
    log = tasks.log()
    for value in range(30):
        stream = driver.stream()
        tasks.append(driver, stream, log, value, slowly=True)
        driver.ok(driver.stream_destroy(stream))
        assert driver.stream_query(stream) == hal.INVALID_VALUE
        assert driver.stream_destroy(stream) == hal.INVALID_VALUE
    driver.ok(driver.device_synchronize(0, hal.NEVER, None))
    assert sorted(log.list()) == list(range(30))


def test_shutdown_runs_what_is_queued(stopped_driver, tasks):
    d = stopped_driver.start(**stopped_driver.options)
    streams, log = [d.stream() for _ in range(4)], tasks.log()
    for value in range(40):
        tasks.append(d, streams[value % 4], log, value)
    d.ok(d.shutdown(hal.NEVER))
    assert sorted(log.list()) == list(range(40))


def test_several_threads_synchronise_one_stream(driver, tasks):
    stream, log = driver.stream(), tasks.log()
    for value in range(200):
        tasks.append(driver, stream, log, value, slowly=value % 20 == 0)
    results = []
    threads = [threading.Thread(target=lambda: results.append((driver.sync(stream)[0], log.count))) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert results == [(hal.OK, 200)] * 6


def test_a_full_queue_holds_the_launcher_and_loses_nothing(start_sim, tasks):
    for schedule in ("eager", "lazy", "random:7"):
        d = start_sim(schedule=schedule, queue_bytes="4KiB")
        stream, log = d.stream(), tasks.log()
        for value in range(2000):
            tasks.append(d, stream, log, value, slowly=value % 500 == 0)
        assert log.count > 1900  # no more than the ring holds is pending
        d.ok(d.sync(stream)[0])
        assert log.list() == list(range(2000))
        d.ok(d.shutdown(hal.NEVER))


def thread_count():
    return len(os.listdir("/proc/self/task"))


def wait_for_threads(count):
    deadline = time.monotonic() + 10
    while thread_count() != count and time.monotonic() < deadline:
        time.sleep(0.005)
    return thread_count()


def test_threads_only_for_streams_in_use(start_sim, tasks):
    before = thread_count()
    d = start_sim(devices=8, memory="16MiB")
    streams = [d.stream(device) for device in range(8) for _ in range(64)]
    for stream in streams:
        d.record(stream)
        d.ok(d.sync(stream)[0])
        d.ok(d.stream_query(stream))
    for device in range(8):
        d.ok(d.device_synchronize(device, hal.NEVER, None))
    assert thread_count() == before
    for stream in streams[::50]:
        d.launch(stream, tasks.nothing)
        d.ok(d.sync(stream)[0])
    assert thread_count() == before + len(streams[::50])
    for stream in streams[:100]:
        d.ok(d.stream_destroy(stream))
    assert wait_for_threads(before + len(streams[100::50])) == before + len(streams[100::50])
    d.ok(d.shutdown(hal.NEVER))
    assert wait_for_threads(before) == before


@pytest.mark.parametrize("schedule", ["lazy", "random:1"])
def test_delayed_schedules_have_no_threads(start_sim, tasks, schedule):
    before = thread_count()
    d = start_sim(schedule=schedule)
    for _ in range(10):
        d.launch(d.stream(), tasks.nothing)
    d.ok(d.device_synchronize(0, hal.NEVER, None))
    assert thread_count() == before


def test_64_streams_on_8_devices_all_in_use(start_sim, tasks):
    d = start_sim(devices=8, memory="16MiB")
    log = tasks.log()
    streams = [d.stream(device, priority) for device in range(8) for priority in [0, -1] * 32]
    previous = None
    for round in range(3):
        for stream in streams:
            if previous:
                d.ok(d.stream_wait_event(stream, previous))
            tasks.append(d, stream, log, round)
            if previous:
                d.ok(d.event_destroy(previous))
            previous = d.record(stream)
    d.ok(d.event_synchronize(previous, hal.NEVER, None))
    assert log.list() == [0] * 512 + [1] * 512 + [2] * 512


def test_an_idle_process_uses_no_cpu(start_sim, tasks):
    d = start_sim()
    for _ in range(8):
        stream = d.stream()
        for _ in range(100):
            d.launch(stream, tasks.nothing)
        d.ok(d.sync(stream)[0])
    time.sleep(0.02)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05
