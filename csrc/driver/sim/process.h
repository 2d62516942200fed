// process.h: who has memory of a device.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::sim {

openreg_status device_processes(int32_t device, openreg_process* processes, uint32_t* count);

}  // namespace openreg::sim
