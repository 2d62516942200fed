// launch.h: host code runs in place; device code does not exist here.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::null {

openreg_status kernel_load(int32_t device, const char* name, const void* image, uint64_t bytes, openreg_kernel* kernel);
openreg_status kernel_unload(openreg_kernel kernel);
openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry, const void* args,
                             uint64_t size, const openreg_launch_desc* desc);
openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size,
                                const openreg_launch_desc* desc);

}  // namespace openreg::null
