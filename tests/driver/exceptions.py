"""What a driver does not do, by driver name, each with its reason.

UNSUPPORTED: by design, for ever; the test is skipped with the reason. EXPECTED_FAILURES: to be repaired; the test runs, and
passing is an error. A name that no test has is an error too (test_lists.py).
"""

ONE_DEVICE = "the null driver has one device"
SYNCHRONOUS = "the null driver runs every task before the launch returns, so nothing is ever pending"
NO_RESERVATIONS = "the null driver has none of the (optional) entries for memory that grows"
NO_PROCESSES = "the null driver has no (optional) device_processes"
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
        "test_stream.py::test_pending_work_is_not_ready": SYNCHRONOUS,
        "test_stream.py::test_info_names_the_running_task": SYNCHRONOUS,
        "test_event.py::test_event_means_its_latest_record": SYNCHRONOUS,
        "test_event.py::test_wait_means_the_record_at_the_call": SYNCHRONOUS,
        "test_event.py::test_elapsed_of_a_pending_event_is_not_ready": SYNCHRONOUS,
        "test_event.py::test_event_destroyed_while_queued": SYNCHRONOUS,
        "test_failure.py::test_tasks_between_failure_and_report_are_skipped_on_late_streams": SYNCHRONOUS,
    },
}

EXPECTED_FAILURES = {
    "sim": {},
    "null": {},
}
