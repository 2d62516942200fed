"""Wrong streams: not current, not new, not waited for."""

import torch

from . import variant
from .libraries import break_guard
from .replacement import replaced


@variant({"check.stream.work_on_one_stream_runs_in_order": "ten steps of x * 2 + step gave"})
def work_runs_out_of_order():
    "Every second addition is done before the multiplication that was queued before it."
    held = []

    def add(a, b, alpha=1):
        held.append(b)
        return torch.add(a, held[max(0, len(held) - 2)], alpha=alpha, out=torch.empty_like(a))

    return replaced("add.Tensor", add)


@variant({"check.stream.a_new_stream_is_not_the_current_one": "torch.Stream(device='openreg:0') makes the stream that is current already"})
def new_streams_are_the_default_one():
    "getNewStream returns the default stream."
    return break_guard("new_stream_is_default")


@variant({"check.stream.a_stream_belongs_to_its_device": "torch.Stream(device='openreg:1') makes a stream of openreg:0"})
def new_streams_are_of_device_zero():
    "getNewStream makes streams of device 0, whichever device it is asked for."
    return break_guard("new_stream_on_device_zero")


@variant({"check.stream.the_stream_block_makes_its_stream_current": "the current stream is"})
def the_current_stream_is_the_default_one():
    "getStream always returns the default stream."
    return break_guard("get_stream_is_default")


@variant({"check.stream.the_stream_block_restores_the_stream": "after an exception in a block of"})
def no_way_back_to_the_default_stream():
    "exchangeStream does not take the default stream, so that the first block of a stream never ends."
    return break_guard("no_way_back_to_the_default_stream")


@variant({
    "check.stream.each_device_has_a_current_stream": "inside a block of a stream of openreg:0 the current stream of openreg:1 is",
    "check.stream.each_thread_has_a_current_stream": "expected the default stream",
})  # fmt: skip
def one_stream_for_all():
    "The current stream is one for all devices and all threads."
    return break_guard("one_stream_for_all_threads")


@variant({"check.stream.synchronize_waits_for_the_stream": "after stream.synchronize()"})
def stream_synchronize_ignored():
    "synchronizeStream returns at once."
    return break_guard("synchronize_stream_ignored")


@variant({"check.stream.device_synchronize_waits_for_every_stream": "after torch.accelerator.synchronize()"})
def device_synchronize_ignored():
    "synchronizeDevice returns at once."
    return break_guard("synchronize_device_ignored")


@variant({"check.stream.a_stream_is_idle_when_its_work_is_done": "stream.query() was true when"})
def streams_are_always_idle():
    "queryStream is always true."
    return break_guard("query_stream_is_true")


@variant({
    "check.stream.wait_stream_orders_two_streams": "a stream that waits for another one saw",
    "check.event.an_event_orders_two_streams": "work behind wait_event saw",
    "check.event.an_event_orders_streams_of_two_devices": "a stream of openreg:1 that waits for an event of openreg:0 went on after",
})  # fmt: skip
def block_ignored():
    "Streams do not wait for events: block has an empty body."
    return break_guard("block_ignored")


@variant({"check.stream.priorities_are_taken": "torch.Stream(priority=-1) raises"})
def priorities_raise():
    "A stream with a priority raises."
    return break_guard("no_priorities")


@variant({"check.stream.a_stream_has_a_native_handle": "is 0"})
def no_native_handle():
    "The native handle of a stream is null."
    return break_guard("no_native_handle")
