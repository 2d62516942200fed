"""What a driver does not do, by driver name, each with its reason.

UNSUPPORTED: by design, for ever; the test is skipped with the reason. EXPECTED_FAILURES: to be repaired; the test runs, and
passing is an error. A name that no test has is an error too (test_lists.py).
"""

ONE_DEVICE = "the null driver has one device"
SYNCHRONOUS = "the null driver runs every task before the launch returns, so nothing is ever pending"
NO_RESERVATIONS = "the null driver has none of the (optional) entries for memory that grows"
NO_PROCESSES = "the null driver has no (optional) device_processes"
NO_RECOVERY = "the null driver has no (optional) device_lose and device_reset"
NO_KERNELS = "the null driver runs no device code"

UNSUPPORTED = {
    "sim": {},
    "null": {
        "test_copy.py::test_copy_between_devices": ONE_DEVICE,
        "test_copy.py::test_stream_of_a_third_device_is_refused": ONE_DEVICE,
        "test_memory.py::test_devices_have_their_own_memory": ONE_DEVICE,
        "test_event.py::test_elapsed_refuses_two_devices": ONE_DEVICE,
        "test_event.py::test_wait_across_devices": ONE_DEVICE,
        "test_launch.py::test_kernel_of_another_device_is_refused": ONE_DEVICE,
        "test_launch.py::test_kernel_runs_with_geometry_and_arguments": NO_KERNELS,
        "test_launch.py::test_kernel_with_an_empty_grid_is_refused": NO_KERNELS,
        "test_launch.py::test_kernel_that_throws_is_a_failure": NO_KERNELS,
        "test_reservation.py::test_mapping_takes_memory_and_reserving_does_not": NO_RESERVATIONS,
        "test_reservation.py::test_pages_side_by_side_are_one_allocation": NO_RESERVATIONS,
        "test_reservation.py::test_what_is_no_page_of_a_reservation_is_refused": NO_RESERVATIONS,
        "test_reservation.py::test_the_capacity_and_the_addresses_are_limits": NO_RESERVATIONS,
        "test_reservation.py::test_processes_with_memory_are_counted": NO_PROCESSES,
        "test_recovery.py::test_every_entry_that_uses_a_lost_device_names_the_reason": NO_RECOVERY,
        "test_recovery.py::test_a_copy_from_a_lost_device_is_refused_on_the_other_side": NO_RECOVERY,
        "test_recovery.py::test_the_first_reason_stays": NO_RECOVERY,
        "test_recovery.py::test_what_makes_no_sense_is_refused": NO_RECOVERY,
        "test_recovery.py::test_queued_tasks_are_dropped_and_cleaned_up": NO_RECOVERY,
        "test_recovery.py::test_an_abandoned_task_keeps_the_device_from_its_reset": NO_RECOVERY,
        "test_recovery.py::test_waits_in_other_threads_return": NO_RECOVERY,
        "test_recovery.py::test_events_complete_and_another_device_is_told_once": NO_RECOVERY,
        "test_recovery.py::test_an_heir_is_told_after_the_reset_too": NO_RECOVERY,
        "test_recovery.py::test_a_lost_stream_stops_waiting_for_a_healthy_one": NO_RECOVERY,
        "test_recovery.py::test_memory_that_is_freed_under_an_abandoned_task_takes_its_writes": NO_RECOVERY,
        "test_recovery.py::test_memory_and_handles_survive": NO_RECOVERY,
        "test_recovery.py::test_a_graph_runs_again_after_the_reset": NO_RECOVERY,
        "test_recovery.py::test_a_capturing_device_is_not_reset": NO_RECOVERY,
        "test_recovery.py::test_shutdown_of_a_lost_device": NO_RECOVERY,
        "test_stream.py::test_pending_work_is_not_ready": SYNCHRONOUS,
        "test_stream.py::test_info_names_the_running_task": SYNCHRONOUS,
        "test_event.py::test_event_means_its_latest_record": SYNCHRONOUS,
        "test_event.py::test_wait_means_the_record_at_the_call": SYNCHRONOUS,
        "test_event.py::test_elapsed_of_a_pending_event_is_not_ready": SYNCHRONOUS,
        "test_event.py::test_event_destroyed_while_queued": SYNCHRONOUS,
        "test_stress.py::test_stress_with_losses": NO_RECOVERY,
        "test_stress.py::test_stress_with_losses_under_thread_sanitizer": NO_RECOVERY,
        "test_stress.py::test_stress_with_losses_under_address_sanitizer": NO_RECOVERY,
        "test_failure.py::test_tasks_between_failure_and_report_are_skipped_on_late_streams": SYNCHRONOUS,
    },
}

EXPECTED_FAILURES = {
    "sim": {},
    "null": {},
}
