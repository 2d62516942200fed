"""Events (L2): what a record stands for, who waits for it, and how long it took."""

import time

import torch

from . import check


def event_of(probe, **options) -> torch.Event:
    """A new event. Ends the check where there are none."""
    probe.needs_events()
    return torch.Event(device=probe.device, **options)


def recorded(probe, **options):
    """(an event that was recorded behind work, the value that the work changes, the value at the end)."""
    event, (stream, value, steps) = event_of(probe, **options), probe.busy_stream()
    event.record(stream)
    return event, value, steps


def seen_behind(probe, event, value) -> float:
    """What another stream sees of the value once it has waited for the event."""
    waiting = probe.stream()
    waiting.wait_event(event)
    with waiting:
        found = value[-1:].clone()
    waiting.synchronize()
    return found.item()


@check
def an_event_orders_two_streams(probe):
    "Work that is queued behind wait_event sees what was queued before the event's record."
    event, value, steps = recorded(probe)
    found = seen_behind(probe, event, value)
    probe.expect(found == steps, f"work behind wait_event saw {found:.0f} of the {steps} additions before the record")
    probe.synchronize()


@check
def an_event_orders_streams_of_two_devices(probe):
    "A stream of another device can wait for an event."
    other = probe.needs_two_devices()
    event, value, steps = recorded(probe)
    waiting = probe.stream(other)
    waiting.wait_event(event)
    behind = torch.Event(device=other)
    behind.record(waiting)
    behind.synchronize()
    found = probe.read_elsewhere(value)
    probe.expect(found == steps, f"a stream of {other} that waits for an event of {probe.device} went on after {found:.0f} of {steps} additions")
    probe.synchronize()


@check
def a_new_record_replaces_the_one_before(probe):
    "An event that is recorded again stands for the new record."
    event, stream, (value, steps) = event_of(probe), probe.stream(), probe.busy()
    event.record(stream)
    with stream:
        probe.work(value, steps)
    event.record(stream)
    found = seen_behind(probe, event, value)
    probe.expect(found == steps, f"work behind an event that was recorded twice saw {found:.0f} of the {steps} additions before the second record")
    probe.synchronize()


@check
def record_without_a_stream_takes_the_current_one(probe):
    "event.record() records on the current stream."
    event, stream, (value, steps) = event_of(probe), probe.stream(), probe.busy()
    with stream:
        probe.work(value, steps)
        event.record()
    found = seen_behind(probe, event, value)
    probe.expect(found == steps, f"work behind event.record(), inside a block of the stream, saw {found:.0f} of the {steps} additions before it")
    probe.synchronize()


@check
def an_event_is_complete_when_its_work_is_done(probe):
    "event.query() is true only when what was queued before the record has finished, and it is true after synchronize()."
    event, value, steps = recorded(probe)
    if event.query():
        found = probe.read_elsewhere(value)
        probe.expect(found == steps, f"event.query() was true when {found:.0f} of the {steps} additions before the record were done")
    event.synchronize()
    probe.expect(event.query(), "event.query() is false after event.synchronize()")


@check
def synchronize_waits_for_the_event(probe):
    "event.synchronize() returns when what was queued before the record has finished."
    event, value, steps = recorded(probe)
    event.synchronize()
    found = probe.read_elsewhere(value)
    probe.expect(found == steps, f"after event.synchronize() {found:.0f} of the {steps} additions before the record were done")
    probe.synchronize()


@check
def an_event_without_a_record_is_complete(probe):
    "An event that was never recorded is complete: query() is true, and nobody waits for it."
    event, stream = event_of(probe), probe.stream()
    probe.expect(event.query(), "query() of an event that was never recorded is false")
    event.synchronize()
    stream.wait_event(event)
    stream.synchronize()


@check
def elapsed_time_is_in_milliseconds(probe):
    "elapsed_time() is the time between two records on the device, in milliseconds."
    start, end = event_of(probe, enable_timing=True), event_of(probe, enable_timing=True)
    stream, (value, steps) = probe.stream(), probe.busy()
    began = time.perf_counter()
    with stream:
        start.record(stream)
        probe.work(value, steps)
        end.record(stream)
    end.synchronize()
    wall_ms = (time.perf_counter() - began) * 1000
    found = start.elapsed_time(end)
    probe.expect(found > 0, f"elapsed_time() of {wall_ms:.1f} ms of work is {found}")
    probe.expect(0.02 * wall_ms < found <= 1.2 * wall_ms + 1, f"elapsed_time() is {found:.3f} where the clock of the host saw {wall_ms:.3f} ms")


@check
def elapsed_time_needs_two_timed_records(probe):
    "elapsed_time() raises RuntimeError or ValueError for an event without enable_timing and for one without a record."
    stream = probe.stream()
    for words, options, record in (("without enable_timing", {}, True), ("without a record", {"enable_timing": True}, False)):
        start, end = event_of(probe, **options), event_of(probe, **options)
        if record:
            start.record(stream)
            end.record(stream)
            end.synchronize()
        said = f"elapsed_time() of events {words} raises no RuntimeError"
        probe.expect_raises(lambda start=start, end=end: start.elapsed_time(end), said, (RuntimeError, ValueError))


@check
def an_event_can_block(probe):
    "An event with blocking=True works like any other."
    event, value, steps = recorded(probe, blocking=True)
    event.synchronize()
    found = probe.read_elsewhere(value)
    probe.expect(found == steps, f"after synchronize() of an event with blocking=True {found:.0f} of the {steps} additions before its record were done")
    probe.synchronize()
