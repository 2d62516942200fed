"""Wrong events: records that are lost, late or of another stream, times that are none."""

import torch

from . import variant
from .libraries import break_guard


@variant({"check.event.a_new_record_replaces_the_one_before": "work behind an event that was recorded twice saw"})
def only_the_first_record_counts():
    "An event that is recorded again keeps its first record."
    return break_guard("record_keeps_the_first")


@variant({"check.event.record_without_a_stream_takes_the_current_one": "work behind event.record(), inside a block of the stream, saw"})
def records_go_to_the_default_stream():
    "An event is recorded on the default stream, whichever it is given."
    return break_guard("record_on_default_stream")


@variant({"check.event.an_event_is_complete_when_its_work_is_done": "event.query() was true when"})
def events_are_always_complete():
    "queryEvent is always true."
    return break_guard("query_event_is_true")


@variant({
    "check.event.synchronize_waits_for_the_event": "after event.synchronize()",
    "check.event.an_event_can_block": "after synchronize() of an event with blocking=True",
})  # fmt: skip
def event_synchronize_ignored():
    "synchronizeEvent returns at once."
    return break_guard("synchronize_event_ignored")


@variant({"check.event.an_event_without_a_record_is_complete": "query() of an event that was never recorded is false"})
def unrecorded_events_are_pending():
    "An event without a record is pending for ever."
    event = torch.Event

    class Wrong(event):
        def query(self):
            return self.event_id != 0 and super().query()

    torch.Event = Wrong


@variant({"check.event.elapsed_time_is_in_milliseconds": "ms of work is 0.0"})
def no_time_passes():
    "elapsedTime is always 0."
    return break_guard("elapsed_is_zero")


@variant({"check.event.elapsed_time_is_in_milliseconds": "where the clock of the host saw"})
def time_in_microseconds():
    "elapsedTime is in microseconds."
    return break_guard("elapsed_in_microseconds")


@variant({"check.event.elapsed_time_is_in_milliseconds": "ms of work is -"})
def time_runs_backwards():
    "elapsedTime is negative when it should be positive."
    return break_guard("elapsed_backwards")


@variant({"check.event.elapsed_time_needs_two_timed_records": "elapsed_time() of events without enable_timing raises no RuntimeError"})
def events_without_timing_have_times():
    "elapsed_time() of events that do not measure is 0, without a word."
    event = torch.Event

    class Wrong(event):
        def elapsed_time(self, other):
            return 0.0

    torch.Event = Wrong
