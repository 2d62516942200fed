"""Events: what they wait for, recording again, timing, and use across devices and threads."""

import threading
import time

import pytest
import torch
import torch_openreg  # noqa: F401

BUSY_NS = 100_000_000


def test_an_event_that_was_never_recorded_is_complete():
    event = torch.openreg.Event()
    assert isinstance(event, torch.Event) and event.query()
    event.synchronize()
    event.wait()
    assert repr(event) == "torch.openreg.Event(not recorded)"


def test_an_event_completes_with_the_work_before_it(device):
    with torch.openreg.device(device):
        torch.openreg._sleep(BUSY_NS)
        event = torch.openreg.Event()
        event.record()
        assert not event.query()
        assert event.device == device and f"device={device}" in repr(event)
    event.synchronize()
    assert event.query() and torch.openreg.current_stream(device).query()


def test_an_event_recorded_again_stands_for_its_latest_record(eager, device):
    stream = torch.openreg.Stream(device)
    event = torch.openreg.Event()
    event.record(stream)
    event.synchronize()
    with torch.openreg.stream(stream):
        torch.openreg._sleep(BUSY_NS)
    event.record(stream)
    assert not event.query()
    with torch.openreg.stream(stream):
        torch.openreg._sleep(BUSY_NS)
        event.record()  # the first of the two is still pending
    start = time.perf_counter()
    event.synchronize()
    assert stream.query() and time.perf_counter() - start > 1.5 * BUSY_NS / 1e9


def test_a_wait_keeps_the_record_that_it_saw(eager, device):
    producer, consumer = torch.openreg.Stream(device), torch.openreg.Stream(device)
    event = torch.openreg.Event()
    event.record(producer)
    consumer.wait_event(event)
    with torch.openreg.stream(producer):
        torch.openreg._sleep(3 * BUSY_NS)
    event.record(producer)
    consumer.synchronize()
    assert not event.query()
    producer.synchronize()


def test_elapsed_time_measures_the_device(device):
    stream = torch.openreg.Stream(device)
    start, end = torch.openreg.Event(enable_timing=True), torch.openreg.Event(enable_timing=True)
    begin = time.perf_counter()
    with torch.openreg.stream(stream):
        start.record()
        torch.openreg._sleep(BUSY_NS)
        end.record()
    end.synchronize()
    assert 100 <= start.elapsed_time(end) <= (time.perf_counter() - begin) * 1000
    assert end.elapsed_time(start) == -start.elapsed_time(end)


def test_elapsed_time_needs_timing_a_record_and_completion(device):
    with torch.openreg.device(device):
        timed, plain = torch.openreg.Event(enable_timing=True), torch.openreg.Event()
        with pytest.raises((RuntimeError, ValueError)):
            timed.elapsed_time(torch.openreg.Event(enable_timing=True))
        timed.record()
        plain.record()
        torch.openreg.synchronize(device)
        with pytest.raises((RuntimeError, ValueError)):
            timed.elapsed_time(plain)
        torch.openreg._sleep(BUSY_NS)
        late = torch.openreg.Event(enable_timing=True)
        late.record()
        with pytest.raises((RuntimeError, ValueError)):
            timed.elapsed_time(late)
        late.synchronize()
        assert timed.elapsed_time(late) > 0


def test_events_of_two_devices_have_no_distance():
    first, second = (torch.openreg.Event(enable_timing=True) for _ in range(2))
    first.record(torch.openreg.current_stream(0))
    second.record(torch.openreg.current_stream(1))
    torch.openreg.synchronize(0)
    torch.openreg.synchronize(1)
    with pytest.raises((RuntimeError, ValueError)):
        first.elapsed_time(second)


def test_an_event_stays_with_the_device_of_its_first_record():
    event = torch.openreg.Event()
    event.record(torch.openreg.current_stream(1))
    with pytest.raises((RuntimeError, ValueError), match="openreg:1"):
        event.record(torch.openreg.current_stream(0))
    assert torch.openreg.current_device() == 0


def test_an_event_can_be_waited_for_by_another_thread(device):
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        torch.openreg._sleep(BUSY_NS)
    event = stream.record_event()
    done = []
    threads = [threading.Thread(target=lambda: (event.synchronize(), done.append(event.query()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 4


def test_events_can_be_dropped_while_they_are_pending(device):
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        torch.openreg._sleep(BUSY_NS)
    waiting = torch.openreg.Stream(device)
    for _ in range(100):
        event = stream.record_event()
        waiting.wait_event(event)
        del event
    waiting.synchronize()
    assert stream.query()


def test_the_generic_torch_event_works_on_every_device(device):
    event = torch.Event(device, enable_timing=True)
    stream = torch.openreg.Stream(device)
    with stream:
        torch.openreg._sleep(BUSY_NS)
        event.record()
    assert not event.query()
    torch.openreg.current_stream(device).wait_event(event)
    torch.openreg.current_stream(device).synchronize()
    assert event.query()


def test_a_blocking_event_is_an_event(device):
    event = torch.openreg.Event(blocking=True)
    event.record(torch.openreg.current_stream(device))
    event.synchronize()
    assert event.query()


def test_events_may_outlive_everything(python):
    result = python(
        """
        import torch, torch_openreg
        event = torch.openreg.Event(enable_timing=True)
        event.record()
        stream = torch.openreg.Stream(1)
        tensor = torch.ones(4, device="openreg:1")
        """
    )
    assert result.stderr == ""
