// memory.cpp: device memory from aligned_alloc, with a capacity.
#include "driver/null/memory.h"

#include "driver/null/blocks.h"
#include "driver/null/device.h"
#include "driver/null/status.h"

namespace openreg::null {
namespace {
Blocks& blocks() {
  static Blocks& all = *new Blocks;
  return all;
}
}  // namespace

void free_all_device_memory() { blocks().free_all(); }

openreg_status check_device_range(const void* address, uint64_t bytes) {
  uint64_t base, length;
  if (!blocks().find(address, &base, &length)) return fail(OPENREG_INVALID_VALUE, "%p is not in live device memory", address);
  if (bytes > length - (reinterpret_cast<uint64_t>(address) - base))
    return fail(OPENREG_INVALID_VALUE, "%llu bytes at %p reach past the end of the allocation", static_cast<unsigned long long>(bytes), address);
  return OPENREG_OK;
}

openreg_status mem_alloc(int32_t device, uint64_t bytes, void** ptr) {
  return entry([&]() -> openreg_status {
    if (!ptr) return fail(OPENREG_INVALID_VALUE, "ptr is null");
    if (openreg_status status = check_device(device)) return status;
    if (bytes == 0) return fail(OPENREG_INVALID_VALUE, "bytes is 0");
    void* block = blocks().allocate(bytes, kAlignment, kMemoryBytes);
    if (!block)
      return fail(OPENREG_OUT_OF_MEMORY, "cannot allocate %llu bytes: %llu of %llu are in use", static_cast<unsigned long long>(bytes),
                  static_cast<unsigned long long>(blocks().used_bytes()), static_cast<unsigned long long>(kMemoryBytes));
    *ptr = block;
    return OPENREG_OK;
  });
}

openreg_status mem_free(int32_t device, void* ptr) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device(device)) return status;
    return blocks().free(ptr) ? OPENREG_OK : fail(OPENREG_INVALID_VALUE, "%p is not the start of a live allocation", ptr);
  });
}

openreg_status mem_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes) {
  return entry([&]() -> openreg_status {
    if (!free_bytes || !total_bytes) return fail(OPENREG_INVALID_VALUE, "free_bytes or total_bytes is null");
    if (openreg_status status = check_device(device)) return status;
    *free_bytes = kMemoryBytes - blocks().used_bytes();
    *total_bytes = kMemoryBytes;
    return OPENREG_OK;
  });
}

openreg_status mem_query(const void* ptr, int32_t* device, void** base, uint64_t* bytes) {
  return entry([&]() -> openreg_status {
    uint64_t start, length;
    if (!blocks().find(ptr, &start, &length)) return fail(OPENREG_INVALID_VALUE, "%p is not in live device memory", ptr);
    if (device) *device = 0;
    if (base) *base = reinterpret_cast<void*>(start);
    if (bytes) *bytes = length;
    return OPENREG_OK;
  });
}

openreg_status mem_kernel_view(int32_t device, intptr_t* delta) {
  return entry([&]() -> openreg_status {
    if (!delta) return fail(OPENREG_INVALID_VALUE, "delta is null");
    if (openreg_status status = check_device(device)) return status;
    *delta = 0;
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
