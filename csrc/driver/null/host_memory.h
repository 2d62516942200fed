// host_memory.h: host memory that the device can reach, which is all of it.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::null {

void free_all_host_memory();

openreg_status host_alloc(uint64_t bytes, void** ptr);
openreg_status host_free(void* ptr);
openreg_status host_query(const void* ptr, void** base, uint64_t* bytes);

}  // namespace openreg::null
