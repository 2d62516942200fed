"""Failing tasks: the first error wins, spreads through events, is reported once, and leaves the rest alone. Any driver."""

import ctypes as c

import pytest

import hal


def synchronise_event(driver, event):
    error = hal.Error(struct_size=c.sizeof(hal.Error))
    return driver.event_synchronize(event, hal.NEVER, c.byref(error)), error


def test_the_record_says_what_failed_where(driver, tasks):
    stream = driver.stream(driver.devices - 1)
    tasks.fail(driver, stream, b"index 7 is out of range", kind=5, name=b"aten::index", tag=0xABCDEF)
    status, error = driver.sync(stream)
    assert status == error.status == hal.LAUNCH_FAILED
    assert (error.kind, error.device, error.tag) == (5, driver.devices - 1, 0xABCDEF)
    assert error.stream_id == driver.state(stream).stream_id
    assert (error.name, error.message) == (b"aten::index", b"index 7 is out of range")
    assert "aten::index" in driver.message() and "index 7" in driver.message()


def test_the_report_fits_the_callers_record(driver, tasks):
    stream = driver.stream()
    tasks.fail(driver, stream)
    small = hal.Error(struct_size=12, device=-9)
    assert driver.stream_synchronize(stream, hal.NEVER, c.byref(small)) == hal.LAUNCH_FAILED
    assert (small.struct_size, small.status, small.kind, small.device) == (12, hal.LAUNCH_FAILED, 3, -9)
    assert driver.stream_synchronize(stream, hal.NEVER, c.byref(hal.Error())) == hal.INVALID_VALUE


def test_first_error_wins_and_is_reported_once(driver, tasks):
    stream = driver.stream()
    tasks.fail(driver, stream, b"first")
    tasks.fail(driver, stream, b"second")
    assert driver.sync(stream)[1].message == b"first"
    driver.ok(driver.sync(stream)[0])


@pytest.mark.parametrize("null_record", [True, False])
def test_tasks_before_the_report_are_skipped_and_later_ones_run(driver, tasks, null_record):
    stream, log, address = driver.stream(), tasks.log(), driver.alloc(64)
    driver.write(address, b"kept")
    tasks.append(driver, stream, log, 1)
    tasks.fail(driver, stream)
    tasks.append(driver, stream, log, 2)
    driver.ok(driver.fill(stream, address, 0, 4, None))
    if null_record:
        assert driver.stream_synchronize(stream, hal.NEVER, None) == hal.LAUNCH_FAILED
    else:
        assert driver.sync(stream)[0] == hal.LAUNCH_FAILED
    tasks.append(driver, stream, log, 3)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [1, 3] and driver.read(address, 4) == b"kept"


def test_queries_and_destruction_never_report(driver, tasks):
    stream = driver.stream()
    tasks.fail(driver, stream)
    event = driver.record(stream)
    for query in (lambda: driver.stream_query(stream), lambda: driver.event_query(event)):
        while (status := query()) == hal.NOT_READY:
            pass
        assert status == hal.OK
    driver.ok(driver.event_destroy(event))
    assert driver.sync(stream)[0] == hal.LAUNCH_FAILED


def test_other_streams_go_on(driver, tasks):
    bad, good, log = driver.stream(), driver.stream(), tasks.log()
    tasks.fail(driver, bad)
    tasks.append(driver, good, log, 1)
    driver.ok(driver.sync(good)[0])
    assert driver.sync(bad)[0] == hal.LAUNCH_FAILED
    assert log.list() == [1]


def test_device_synchronize_reports_every_failure_once(driver, tasks):
    streams = [driver.stream() for _ in range(3)]
    for stream, message in zip(streams, [b"a", b"b", b"c"]):
        tasks.fail(driver, stream, message)
        while driver.stream_query(stream) == hal.NOT_READY:
            pass
    messages = []
    for _ in streams:
        error = hal.Error(struct_size=c.sizeof(hal.Error))
        assert driver.device_synchronize(0, hal.NEVER, c.byref(error)) == hal.LAUNCH_FAILED
        messages.append(error.message)
    assert messages == [b"a", b"b", b"c"]
    driver.ok(driver.device_synchronize(0, hal.NEVER, None))


def test_events_carry_a_failure_and_waiting_streams_inherit_it(driver, tasks):
    bad, heir, log = driver.stream(), driver.stream(driver.devices - 1), tasks.log()
    clean = driver.record(bad)
    tasks.fail(driver, bad, b"inherited", name=b"origin")
    event = driver.record(bad)
    driver.ok(driver.stream_wait_event(heir, event))
    tasks.append(driver, heir, log, 1)
    grandchild = driver.record(heir)
    assert synchronise_event(driver, clean)[0] == hal.OK
    status, error = synchronise_event(driver, grandchild)
    assert (status, error.message, error.name) == (hal.LAUNCH_FAILED, b"inherited", b"origin")
    assert error.stream_id == driver.state(bad).stream_id
    # Reported once means reported everywhere.
    for stream in (bad, heir):
        driver.ok(driver.sync(stream)[0])
    driver.ok(synchronise_event(driver, event)[0])
    tasks.append(driver, heir, log, 2)
    tasks.append(driver, bad, log, 3)
    for device in range(driver.devices):
        driver.ok(driver.device_synchronize(device, hal.NEVER, None))
    assert sorted(log.list()) == [2, 3]


def test_a_reported_failure_is_not_inherited(driver, tasks):
    bad, other, log = driver.stream(), driver.stream(), tasks.log()
    tasks.fail(driver, bad)
    event = driver.record(bad)
    assert driver.sync(bad)[0] == hal.LAUNCH_FAILED
    driver.ok(driver.stream_wait_event(other, event))
    tasks.append(driver, other, log, 1)
    driver.ok(driver.sync(other)[0])
    assert log.list() == [1]


def test_the_heir_keeps_its_own_first_error(driver, tasks):
    bad, heir = driver.stream(), driver.stream()
    tasks.fail(driver, heir, b"own")
    while driver.stream_query(heir) == hal.NOT_READY:
        pass
    tasks.fail(driver, bad, b"foreign")
    driver.ok(driver.stream_wait_event(heir, driver.record(bad)))
    assert driver.sync(heir)[1].message == b"own"
    assert driver.sync(bad)[1].message == b"foreign"


def test_tasks_between_failure_and_report_are_skipped_on_late_streams(driver, tasks):
    """A stream that meets a failure only after its report still skips what it had queued before the report."""
    bad, late, log = driver.stream(), driver.stream(), tasks.log()
    gate = tasks.gate(driver, late)
    tasks.fail(driver, bad)
    event = driver.record(bad)
    driver.ok(driver.stream_wait_event(late, event))
    tasks.append(driver, late, log, 1)
    if driver.schedule == "random":
        assert driver.device_synchronize(0, hal.NEVER, None) == hal.LAUNCH_FAILED
    else:
        assert driver.sync(bad)[0] == hal.LAUNCH_FAILED
    tasks.append(driver, late, log, 2)
    gate.open()
    driver.ok(driver.sync(late)[0])
    assert log.list() == [2]


@pytest.mark.parametrize("function,message", [("throw_exception", b"thrown on purpose"), ("throw_number", b"not a std::exception")])
def test_a_throwing_task_does_not_end_the_process(driver, tasks, function, message):
    stream, log = driver.stream(), tasks.log()
    driver.launch(stream, getattr(tasks, function), name=b"thrower")
    status, error = driver.sync(stream)
    assert status == hal.LAUNCH_FAILED and message in error.message and error.name == b"thrower"
    tasks.append(driver, stream, log, 1)
    driver.ok(driver.sync(stream)[0])
    assert log.list() == [1]


def test_an_error_that_nobody_asked_for_is_printed(stopped_driver, tasks, capfd):
    d = stopped_driver.start(**stopped_driver.options)
    kept, destroyed, asked = d.stream(), d.stream(), d.stream()
    tasks.fail(d, kept, b"at shutdown", name=b"one")
    tasks.fail(d, destroyed, b"at destroy", name=b"two")
    d.ok(d.stream_destroy(destroyed))
    tasks.fail(d, asked, b"asked for")
    assert d.sync(asked)[0] == hal.LAUNCH_FAILED
    d.shutdown(hal.NEVER)
    printed = capfd.readouterr().err
    assert printed.count("one") == printed.count("at shutdown") == 1
    assert printed.count("two") == printed.count("at destroy") == 1
    assert "asked for" not in printed.replace("nobody asked for this error", "")
