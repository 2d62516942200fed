// copy.h: copies and fills.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::null {

openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc);
openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc);

}  // namespace openreg::null
