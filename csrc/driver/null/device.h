// device.h: the one device.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::null {

constexpr uint64_t kMemoryBytes = uint64_t{1} << 30;
constexpr uint64_t kAlignment = 512;

// INVALID_DEVICE for every device but 0.
openreg_status check_device(int32_t device);

uint64_t clock_ns();

openreg_status device_count(int32_t* count);
openreg_status device_info(int32_t device, openreg_device_info* info);
openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error);
openreg_status device_clock(int32_t device, uint64_t* now_ns);

}  // namespace openreg::null
