"""Streams (L2): which one is current, order within one and between two, waiting."""

import torch

from . import check


def current(device) -> torch.Stream:
    return torch.accelerator.current_stream(device)


@check
def work_on_one_stream_runs_in_order(probe):
    "Operators that are queued on one stream run in the order of their calls."
    with probe.stream() as stream:
        value = torch.zeros(1000, device=probe.device)
        for step in range(10):
            value = value * 2 + step
    stream.synchronize()
    expected = torch.zeros(1000)
    for step in range(10):
        expected = expected * 2 + step
    found = value.cpu()
    probe.expect(torch.equal(found, expected), f"ten steps of x * 2 + step gave {found[0].item()}, expected {expected[0].item()}")


@check
def a_new_stream_is_not_the_current_one(probe):
    "torch.Stream(device) makes a stream of that device that is not the current one."
    stream = probe.stream()
    probe.expect(stream.device == probe.device, f"torch.Stream(device={str(probe.device)!r}) makes a stream of {stream.device}")
    probe.expect(stream != current(probe.device), f"torch.Stream(device={str(probe.device)!r}) makes the stream that is current already, {stream}")


@check
def a_stream_belongs_to_its_device(probe):
    "A stream made for another device than the current one is of that device."
    other = probe.needs_two_devices()
    stream = probe.stream(other)
    probe.expect(stream.device == other, f"torch.Stream(device={str(other)!r}) makes a stream of {stream.device}")


@check
def the_stream_block_makes_its_stream_current(probe):
    "Inside `with stream` the stream is current."
    stream = probe.stream()
    with stream:
        found = current(probe.device)
        probe.expect(found == stream, f"inside a block of {stream} the current stream is {found}")


@check
def the_stream_block_restores_the_stream(probe):
    "After `with stream` the stream from before is current again, nested and after an exception, too."
    first, second = probe.stream(), probe.stream()
    before = current(probe.device)
    with first:
        with second:
            pass
        found = current(probe.device)
        probe.expect(found == first, f"after a block of {second} inside one of {first}, the current stream is {found}")
    try:
        with first:
            raise ZeroDivisionError
    except ZeroDivisionError:
        found = current(probe.device)
    probe.expect(found == before, f"after an exception in a block of {first} the current stream is {found}, it was {before}")


@check
def each_device_has_a_current_stream(probe):
    "Making a stream of one device current leaves the current stream of another device as it is."
    other = probe.needs_two_devices()
    before = current(other)
    with probe.stream():
        found = current(other)
    probe.expect(found == before, f"inside a block of a stream of {probe.device} the current stream of {other} is {found}, it was {before}")


@check
def each_thread_has_a_current_stream(probe):
    "A thread begins with the default stream, whatever stream is current in the thread that started it."
    probe.needs_streams()
    default = probe.in_a_thread(lambda: current(probe.device))
    with probe.stream() as stream:
        found = probe.in_a_thread(lambda: current(probe.device))
    probe.expect(found == default, f"a thread that is started inside a block of {stream} begins with {found}, expected the default stream {default}")


@check
def synchronize_waits_for_the_stream(probe):
    "stream.synchronize() returns when the work of the stream has finished."
    stream, value, steps = probe.busy_stream()
    stream.synchronize()
    found = probe.read_elsewhere(value)
    probe.expect(found == steps, f"after stream.synchronize() {found:.0f} of the {steps} additions of the stream were done")
    probe.synchronize()


@check
def device_synchronize_waits_for_every_stream(probe):
    "torch.accelerator.synchronize(device) returns when the work of all streams of the device has finished."
    stream, value, steps = probe.busy_stream()
    torch.accelerator.synchronize(probe.device)
    found = probe.read_elsewhere(value)
    probe.expect(found == steps, f"after torch.accelerator.synchronize() {found:.0f} of the {steps} additions of a side stream were done")
    probe.synchronize()


@check
def a_stream_is_idle_when_its_work_is_done(probe):
    "stream.query() is true only when the work of the stream has finished, and it is true after synchronize()."
    stream, value, steps = probe.busy_stream()
    if stream.query():
        found = probe.read_elsewhere(value)
        probe.expect(found == steps, f"stream.query() was true when {found:.0f} of the {steps} additions of the stream were done")
    stream.synchronize()
    probe.expect(stream.query(), "stream.query() is false after stream.synchronize()")


@check
def wait_stream_orders_two_streams(probe):
    "Work that is queued after wait_stream(other) sees what was queued on the other stream before."
    probe.needs_events()
    second, (first, value, steps) = probe.stream(), probe.busy_stream()
    second.wait_stream(first)
    with second:
        found = value[-1:].clone()
    second.synchronize()
    probe.expect(found.item() == steps, f"a stream that waits for another one saw {found.item():.0f} of its {steps} additions")
    probe.synchronize()


@check
def priorities_are_taken(probe):
    "A stream can be made with any priority; what the device does not have is the nearest that it has."
    probe.needs_streams()
    for priority in (-1, 0, 1, -100):
        try:
            stream = probe.stream(priority=priority)
        except Exception as error:
            probe.expect(False, f"torch.Stream(priority={priority}) raises {type(error).__name__}: {str(error).splitlines()[0]}")
        with stream:
            value = torch.ones(3, device=probe.device) + 1
        stream.synchronize()
        probe.expect(value.cpu().tolist() == [2, 2, 2], f"on a stream of priority {priority}, 1 + 1 is {value.cpu().tolist()}")


@check
def a_stream_has_a_native_handle(probe):
    "stream.native_handle is the handle that other libraries need: not null, and the same each time."
    stream = probe.stream()
    probe.needs_support(lambda: stream.native_handle, "native handles of streams")
    first, second = stream.native_handle, stream.native_handle
    probe.expect(first, f"native_handle of {stream} is {first}")
    probe.expect(first == second, f"native_handle of {stream} is {first} and then {second}")
