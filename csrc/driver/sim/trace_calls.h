// trace_calls.h: the entries that a trace tells of, as the table has them: each calls the entry of its name, and gives a record when somebody traces.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::sim::traced {

openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args, uint64_t size,
                             const openreg_launch_desc* desc);
openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size, const openreg_launch_desc* desc);
openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc);
openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc);
openreg_status event_record(openreg_event event, openreg_stream stream);
openreg_status stream_wait_event(openreg_stream stream, openreg_event event);
openreg_status graph_launch(openreg_graph graph, openreg_stream stream);
openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error);
openreg_status stream_synchronize(openreg_stream stream, uint64_t timeout_ns, openreg_error* error);
openreg_status event_synchronize(openreg_event event, uint64_t timeout_ns, openreg_error* error);
openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr);
openreg_status mem_free(int32_t device, void* ptr);
openreg_status mem_map(int32_t device, void* ptr, uint64_t bytes);
openreg_status mem_unmap(int32_t device, void* ptr, uint64_t bytes);
openreg_status host_alloc(uint64_t bytes, void** ptr);
openreg_status host_free(void* ptr);

}  // namespace openreg::sim::traced
