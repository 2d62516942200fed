"""Wrong drivers: a library between the simulator and its caller that changes one thing. `--level L0` shows them."""

from . import variant
from .libraries import break_driver


@variant({"check.driver.the_table_is_of_this_version": "openreg_get_driver(99) returns 0, expected UNSUPPORTED"})
def every_version():
    "The driver gives its table for every version that it is asked for."
    break_driver("every_version")


@variant({"check.driver.optional_entries_come_in_groups": "the table has mem_reserve, mem_unreserve, mem_map and not mem_unmap"})
def half_a_group():
    "Memory can be mapped and not unmapped."
    break_driver("half_a_group")


@variant({"check.driver.entries_need_a_start": "device_count with no init before it returns OK, expected NOT_INITIALIZED"})
def works_before_init():
    "device_count works before init."
    break_driver("works_before_init")


@variant({"check.driver.init_refuses_what_it_does_not_know": "init with the option no_such_option returns OK, expected INVALID_VALUE"})
def takes_any_option():
    "init ignores its options."
    break_driver("takes_any_option")


@variant({"check.driver.devices_describe_themselves": "'compute_units': 0"})
def no_compute_units():
    "device_info says that a device has no compute units."
    break_driver("no_compute_units")


@variant({"check.driver.a_device_that_does_not_exist_is_refused": "mem_alloc with device 2 returns OK, expected INVALID_DEVICE"})
def any_index_is_device_zero():
    "Memory for a device that does not exist comes from device 0."
    break_driver("any_index_is_device_zero")


@variant({"check.driver.no_more_is_written_than_the_caller_has": "device_info writes beyond the"})
def writes_whole_structures():
    "device_info does not look at struct_size."
    break_driver("writes_whole_structures")


@variant({"check.driver.the_clock_goes_on": "ns of the host's clock, device_clock went on by"})
def clock_in_microseconds():
    "device_clock counts microseconds."
    break_driver("clock_in_microseconds")


@variant({"check.driver.allocations_are_aligned_apart_and_counted": "which is not a multiple of 512"})
def driver_memory_begins_anywhere():
    "Memory begins behind a header of 8 bytes."
    break_driver("memory_begins_anywhere")


@variant({"check.driver.too_much_memory_is_out_of_memory": "returns INTERNAL, expected OUT_OF_MEMORY"})
def out_of_memory_is_a_defect():
    "Running out of memory is INTERNAL."
    break_driver("out_of_memory_is_a_defect")


@variant({"check.driver.only_what_was_allocated_is_freed": "mem_free with the middle of an allocation returns OK, expected INVALID_VALUE"})
def frees_everything():
    "mem_free is content with every address."
    break_driver("frees_everything")


@variant({"check.driver.an_address_leads_to_its_allocation": "mem_query of byte 4095 of an allocation gives"})
def an_address_is_its_own_allocation():
    "mem_query gives back the address that it was asked for."
    break_driver("an_address_is_its_own_allocation")


@variant({"check.driver.host_memory_is_known": "host_query with memory that is not from host_alloc returns OK"})
def all_memory_is_page_locked():
    "host_query finds every address."
    break_driver("all_memory_is_page_locked")


@variant({"check.driver.copies_move_every_byte": "byte 4095 of 4096 is another one"})
def copies_lose_the_last_byte():
    "Copies leave their last byte out."
    break_driver("copies_lose_the_last_byte")


@variant({"check.driver.overlapping_copies_are_moves": "repeats bytes instead of moving them"})
def copies_go_forward():
    "Copies go from the first byte to the last, whatever overlaps."
    break_driver("copies_go_forward")


@variant({"check.driver.copies_stay_in_their_allocation": "copy with more bytes than the allocation has returns OK"})
def copies_are_not_checked():
    "copy does not say that a range is none."
    break_driver("copies_are_not_checked")


@variant({"check.driver.copies_cross_devices": "a copy from device 0 to 1 on a stream of device 0 gives other bytes"})
def driver_copies_between_devices_move_nothing():
    "A copy between devices moves nothing."
    break_driver("copies_between_devices_move_nothing")


@variant({"check.driver.fill_sets_every_byte": "fill of 1000 bytes from byte 10 on set 1024 bytes"})
def fills_whole_lines():
    "fill sets a multiple of 64 bytes."
    break_driver("fills_whole_lines")


@variant({"check.driver.tasks_run_in_order": "50 tasks of one stream ran in the order"}, OPENREG_SCHEDULE="lazy")
def every_second_task_runs_at_once():
    "Every second task runs before the ones that were queued earlier."
    break_driver("every_second_task_runs_at_once")


@variant({"check.driver.arguments_are_copied": "a task sees what the caller wrote to the arguments after the launch"})
def arguments_are_borrowed():
    "A launch keeps the caller's pointer instead of the arguments."
    break_driver("arguments_are_borrowed")


@variant({"check.driver.bad_launches_are_refused": "launch_host_func with no function returns OK, expected INVALID_VALUE"})
def no_function_is_fine():
    "A launch without a function is OK."
    break_driver("no_function_is_fine")


@variant({"check.driver.cleanup_runs_once": "after a task the cleanup ran 0 times"})
def cleanups_are_forgotten():
    "A launch's cleanup never runs."
    break_driver("cleanups_are_forgotten")


@variant({"check.driver.a_failure_is_reported_once": "stream_synchronize with a task that failed returns OK, expected LAUNCH_FAILED"})
def failures_are_kept_secret():
    "Nobody is told that a task failed."
    break_driver("failures_are_kept_secret")


@variant({"check.driver.failures_travel_with_events": "event_synchronize with an event that was recorded behind a failure returns OK, expected LAUNCH_FAILED"})
def events_forget_failures():
    "An event does not carry the failure of its stream."
    break_driver("events_forget_failures")


@variant({"check.driver.failures_travel_with_events": "a stream that waited for an event behind a failure returns OK, expected LAUNCH_FAILED"})
def waits_inherit_no_failure():
    "A stream does not inherit the failure of the event that it waits for."
    break_driver("waits_inherit_no_failure")


@variant({"check.driver.a_query_tells_the_truth": "stream_query returns OK while a task is running"})
def driver_streams_are_always_idle():
    "stream_query is always OK."
    break_driver("streams_are_always_idle")


@variant({"check.driver.synchronisation_waits": "stream_synchronize returns OK while a task is running"})
def synchronisation_does_not_wait():
    "stream_synchronize returns at once."
    break_driver("synchronisation_does_not_wait")


@variant({"check.driver.streams_wait_for_events": "ran: behind the wait, before the record"})
def waits_are_forgotten():
    "stream_wait_event does nothing."
    break_driver("waits_are_forgotten")


@variant({"check.driver.elapsed_time_is_in_nanoseconds": "ns around a task of 20 ms"})
def driver_time_in_microseconds():
    "event_elapsed is in microseconds."
    break_driver("time_in_microseconds")


@variant({"check.driver.a_stream_describes_itself": "three streams have the numbers [1, 1, 1]"})
def streams_share_a_number():
    "All streams have the same number."
    break_driver("streams_share_a_number")


@variant({"check.driver.the_kernel_view_shows_device_memory": "sees other bytes than a copy to the host"})
def the_kernel_view_is_shifted():
    "The kernel view begins one byte too late."
    break_driver("the_kernel_view_is_shifted")


@variant({"check.driver.reservations_take_memory_when_mapped": "mem_map with addresses that are mapped already returns OK"})
def memory_is_mapped_twice():
    "Memory can be mapped where there is memory."
    break_driver("memory_is_mapped_twice")


@variant({"check.driver.an_import_is_the_same_memory": "has other bytes than the memory that was exported"})
def imports_are_copies():
    "mem_import gives new memory."
    break_driver("imports_are_copies")


@variant({"check.driver.a_capture_runs_when_it_is_launched": "a graph with one task, launched 3 times, ran it 1 times"})
def graphs_run_once():
    "A graph runs at its first launch only."
    break_driver("graphs_run_once")


@variant({"check.driver.a_trace_has_calls_and_operations": "the trace of a fill has 1 records of kind FILL"})
def operations_are_not_traced():
    "The trace has calls and no operations."
    break_driver("operations_are_not_traced")


@variant({"check.driver.a_lost_device_comes_back": "mem_alloc with a device that is lost returns OK"})
def no_device_is_ever_lost():
    "device_lose does nothing."
    break_driver("no_device_is_ever_lost")


@variant({"check.driver.usage_is_a_part_of_the_whole": "device_usage says that the device is busy for 500000 permille"})
def usage_in_millionths():
    "device_usage is in millionths."
    break_driver("usage_in_millionths")


@variant({"check.driver.a_forked_child_is_refused": "device_count with a forked child as the caller returns OK, expected FORKED"})
def forks_go_on():
    "A forked child uses the driver as its parent did."
    break_driver("forks_go_on")
