// What happens when a device has no memory for a request: the observers, the profiler, and the sentence.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

#include "runtime/export.h"

namespace openreg {

struct OutOfMemory {
  c10::DeviceIndex device;
  uint64_t requested_bytes;
  uint64_t allowed_bytes;  // by the memory fraction; at least total_bytes = no limit of its own
  uint64_t free_bytes, total_bytes;  // as the driver sees them
  uint64_t allocated_bytes, reserved_bytes, private_pool_bytes;  // the last: reserved in private pools
};

// Called on the thread that runs out of memory, before the error is thrown, with the device, the bytes that were asked for, the bytes that
// the allocator has in use, and the free bytes of the device; no lock is held. Observers stay for the life of the process.
using OutOfMemoryObserver = std::function<void(c10::DeviceIndex device, uint64_t requested, uint64_t allocated, uint64_t free)>;
OPENREG_API void attach_out_of_memory_observer(OutOfMemoryObserver observer);

// Tells everybody and throws c10::OutOfMemoryError.
[[noreturn]] void throw_out_of_memory(const OutOfMemory& facts);

}  // namespace openreg
