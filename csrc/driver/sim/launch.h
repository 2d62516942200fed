// launch.h: loading device code, and enqueueing device code and host code.
#pragma once

#include <cstdint>

#include "driver/sim/task.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

// Fills a task's name, tag and cleanup from the caller's descriptor; null is legal. INVALID_VALUE with a sentence.
openreg_status describe_task(const char* operation, const openreg_launch_desc* desc, const char* unnamed, Task* task);

// Invalidates every loaded kernel. At shutdown.
void forget_kernels();

openreg_status kernel_load(int32_t device, const char* name, const void* image, uint64_t bytes, openreg_kernel* kernel);
openreg_status kernel_unload(openreg_kernel kernel);
openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args,
                             uint64_t size, const openreg_launch_desc* desc);
openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size,
                                const openreg_launch_desc* desc);

}  // namespace openreg::sim
