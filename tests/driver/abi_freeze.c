/* abi_freeze.c: the layout of version 1 of the table, as numbers. Compiled as C11 and as C++; never run.
 *
 * A new minor version appends lines. A line that has to change means a new major version.
 */
#include "hal/openreg_hal.h"

#ifdef __cplusplus
#define FREEZE(condition) static_assert(condition, #condition)
#else
#define FREEZE(condition) _Static_assert(condition, #condition)
#endif

#define SIZE(type, bytes) FREEZE(sizeof(type) == (bytes))
#define AT(type, field, offset) FREEZE(offsetof(type, field) == (offset))
/* Entries are pointers behind a head of 24 bytes. */
#define ENTRY(field, index) AT(openreg_driver, field, 24 + 8 * (index))

FREEZE(OPENREG_HAL_MAJOR == 1);
FREEZE(OPENREG_OK == 0 && OPENREG_NOT_READY == 1 && OPENREG_INVALID_VALUE == 2 && OPENREG_INVALID_DEVICE == 3);
FREEZE(OPENREG_OUT_OF_MEMORY == 4 && OPENREG_UNSUPPORTED == 5 && OPENREG_NOT_INITIALIZED == 6 && OPENREG_FORKED == 7);
FREEZE(OPENREG_LAUNCH_FAILED == 8 && OPENREG_DEVICE_LOST == 9 && OPENREG_INTERNAL == 10);
FREEZE(OPENREG_WANT_RANGES == 1u && OPENREG_WANT_COSTS == 2u);

SIZE(openreg_status, 4);
SIZE(openreg_error, 1184);
AT(openreg_error, struct_size, 0);
AT(openreg_error, status, 4);
AT(openreg_error, kind, 8);
AT(openreg_error, device, 12);
AT(openreg_error, stream_id, 16);
AT(openreg_error, tag, 24);
AT(openreg_error, name, 32);
AT(openreg_error, message, 160);

SIZE(openreg_option, 16);
AT(openreg_option, key, 0);
AT(openreg_option, value, 8);

SIZE(openreg_device_info, 112);
AT(openreg_device_info, struct_size, 0);
AT(openreg_device_info, name, 4);
AT(openreg_device_info, total_memory_bytes, 72);
AT(openreg_device_info, allocation_granularity_bytes, 80);
AT(openreg_device_info, compute_units, 88);
AT(openreg_device_info, capability_major, 92);
AT(openreg_device_info, capability_minor, 96);
AT(openreg_device_info, priority_least, 100);
AT(openreg_device_info, priority_greatest, 104);

SIZE(openreg_stream_info, 168);
AT(openreg_stream_info, struct_size, 0);
AT(openreg_stream_info, device, 4);
AT(openreg_stream_info, priority, 8);
AT(openreg_stream_info, stream_id, 16);
AT(openreg_stream_info, queued, 24);
AT(openreg_stream_info, running_for_ns, 32);
AT(openreg_stream_info, running, 40);

SIZE(openreg_ipc_handle, 64);
AT(openreg_ipc_handle, bytes, 0);

SIZE(openreg_range, 24);
AT(openreg_range, base, 0);
AT(openreg_range, bytes, 8);
AT(openreg_range, write, 16);

SIZE(openreg_operand, 48);
AT(openreg_operand, flags, 0);
AT(openreg_operand, element_bytes, 4);
AT(openreg_operand, dims, 8);
AT(openreg_operand, sizes, 16);
AT(openreg_operand, strides, 24);
AT(openreg_operand, dtype, 32);
AT(openreg_operand, token, 40);

SIZE(openreg_launch_desc, 72);
AT(openreg_launch_desc, struct_size, 0);
AT(openreg_launch_desc, name, 8);
AT(openreg_launch_desc, tag, 16);
AT(openreg_launch_desc, flops, 24);
AT(openreg_launch_desc, bytes, 32);
AT(openreg_launch_desc, ranges, 40);
AT(openreg_launch_desc, range_count, 48);
AT(openreg_launch_desc, cleanup, 56);
AT(openreg_launch_desc, operands, 64);

SIZE(openreg_geometry, 24);
AT(openreg_geometry, grid, 0);
AT(openreg_geometry, block, 12);

SIZE(openreg_process, 16);
AT(openreg_process, pid, 0);
AT(openreg_process, bytes, 8);

AT(openreg_driver, struct_size, 0);
AT(openreg_driver, major, 4);
AT(openreg_driver, minor, 8);
AT(openreg_driver, wants, 12);
AT(openreg_driver, name, 16);
ENTRY(init, 0);
ENTRY(shutdown, 1);
ENTRY(last_message, 2);
ENTRY(device_count, 3);
ENTRY(device_info, 4);
ENTRY(device_synchronize, 5);
ENTRY(device_clock, 6);
ENTRY(mem_alloc, 7);
ENTRY(mem_free, 8);
ENTRY(mem_info, 9);
ENTRY(mem_query, 10);
ENTRY(mem_kernel_view, 11);
ENTRY(host_alloc, 12);
ENTRY(host_free, 13);
ENTRY(host_query, 14);
ENTRY(copy, 15);
ENTRY(fill, 16);
ENTRY(stream_create, 17);
ENTRY(stream_destroy, 18);
ENTRY(stream_query, 19);
ENTRY(stream_synchronize, 20);
ENTRY(stream_wait_event, 21);
ENTRY(stream_info, 22);
ENTRY(event_create, 23);
ENTRY(event_destroy, 24);
ENTRY(event_record, 25);
ENTRY(event_query, 26);
ENTRY(event_synchronize, 27);
ENTRY(event_elapsed, 28);
ENTRY(kernel_load, 29);
ENTRY(kernel_unload, 30);
ENTRY(launch_kernel, 31);
ENTRY(launch_host_func, 32);
/* 1.1 */
ENTRY(mem_reserve, 33);
ENTRY(mem_unreserve, 34);
ENTRY(mem_map, 35);
ENTRY(mem_unmap, 36);
ENTRY(device_processes, 37);
ENTRY(mem_export, 38);
ENTRY(mem_import, 39);
ENTRY(mem_close, 40);
ENTRY(event_create_shared, 41);
ENTRY(event_export, 42);
ENTRY(event_import, 43);

/* 1.2 */
ENTRY(capture_begin, 44);
ENTRY(capture_end, 45);
ENTRY(stream_capture_info, 46);
ENTRY(capture_exchange_mode, 47);
ENTRY(graph_launch, 48);
ENTRY(graph_destroy, 49);
ENTRY(graph_update, 50);
ENTRY(graph_dump, 51);

/* 1.3 */
ENTRY(option_exchange, 52);

/* 1.4 */
ENTRY(device_lose, 53);
ENTRY(device_reset, 54);
ENTRY(trace_exchange, 55);

SIZE(openreg_trace_record, 104);
AT(openreg_trace_record, kind, 4);
AT(openreg_trace_record, operation, 8);
AT(openreg_trace_record, device, 12);
AT(openreg_trace_record, stream_id, 16);
AT(openreg_trace_record, correlation, 24);
AT(openreg_trace_record, cause, 32);
AT(openreg_trace_record, tag, 40);
AT(openreg_trace_record, name, 48);
AT(openreg_trace_record, begin_ns, 56);
AT(openreg_trace_record, end_ns, 64);
AT(openreg_trace_record, bytes, 72);
AT(openreg_trace_record, address, 80);
AT(openreg_trace_record, dst_device, 88);
AT(openreg_trace_record, src_device, 92);
AT(openreg_trace_record, status, 96);

/* 1.5 */
ENTRY(device_usage, 56);

SIZE(openreg_usage, 16);
AT(openreg_usage, busy_permille, 4);
AT(openreg_usage, streams, 8);
AT(openreg_usage, processes, 12);
