// The caching device allocator behind torch's PrivateUse1 memory: blocks cut from HAL segments, reused in stream order.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include "runtime/export.h"

namespace openreg {

// The one allocator (leaked on purpose: tensors may outlive every static).
OPENREG_API c10::DeviceAllocator* device_allocator();

// Makes it torch's allocator for PrivateUse1.
void register_device_allocator();

// Memory on `device` for use on that device's current stream of the calling thread, whichever device is current. `bytes` may be 0:
// then the pointer is null. Throws c10::OutOfMemoryError after flushing and retrying. Any thread.
OPENREG_API c10::DataPtr allocate_device_memory(c10::DeviceIndex device, size_t bytes);

// The same by address, for other libraries: memory for use on `stream`, null for 0 bytes; ValueError for a stream that is not there. To be
// given back with free_device_block, which throws ValueError for an address that allocate_device_block did not return or that was given
// back, a tensor's too. Any thread.
OPENREG_API void* allocate_device_block(c10::Stream stream, size_t bytes);
OPENREG_API void free_device_block(void* address);

// The part of the device's memory, 0 to 1, that this process may reserve.
OPENREG_API void set_memory_fraction(c10::DeviceIndex device, double fraction);
OPENREG_API double memory_fraction(c10::DeviceIndex device);

// Memory that a running or queued task on `stream` uses too is reused only after that task: record_stream's rule for a raw block
// address. Nothing happens for an address that is not this allocator's.
OPENREG_API void record_block_on_stream(void* block, c10::Stream stream);

// At the end of a capture: blocks that were freed during it go on to wait for the streams that were captured.
void record_deferred_blocks();

}  // namespace openreg
