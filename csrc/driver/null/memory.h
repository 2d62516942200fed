// memory.h: device memory, which is host memory here: the kernel view has delta 0.
#pragma once

#include <cstdint>

#include "hal/openreg_hal.h"

namespace openreg::null {

// INVALID_VALUE with a sentence unless [address, address + bytes) lies in one live allocation.
openreg_status check_device_range(const void* address, uint64_t bytes);

void free_all_device_memory();

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr);
openreg_status mem_free(int32_t device, void* ptr);
openreg_status mem_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes);
openreg_status mem_query(const void* ptr, int32_t* device, void** base, uint64_t* bytes);
openreg_status mem_kernel_view(int32_t device, intptr_t* delta);

}  // namespace openreg::null
