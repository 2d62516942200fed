// Device storages: growing and shrinking one in stream order, memory for copies on write, and memory of other owners.
#pragma once

#include <c10/core/Storage.h>

#include "runtime/export.h"

namespace openreg {

// Gives the storage `bytes` bytes on its own device, keeping the common prefix; 0 frees the memory. Asynchronous on the
// device's current stream. Throws for a storage that is not resizable; then nothing changed.
OPENREG_API void resize_storage(c10::StorageImpl* storage, size_t bytes);

// Makes the storage take its later memory from its own device. A copy on write asks the storage's allocator, which knows no device
// but the current one.
void bind_allocator_to_device(c10::StorageImpl* storage);

// A storage over `bytes` of live device memory that somebody else owns, at any place of an allocation; it cannot grow. When its last user is
// gone and the work that was queued until then, on any stream, has finished, `release(context)` is called once. It may run on a worker, so it
// neither calls the driver nor takes the GIL; null: nothing is called. After the driver has stopped it is not called any more. Throws for a
// pointer that is no device memory. Any thread.
OPENREG_API c10::Storage wrap_device_memory(void* pointer, size_t bytes, void (*release)(void*), void* context);

// Calls `release(context)` once, behind everything that is queued on any stream. A stream that is being captured keeps the memory until the end of
// the capture and of what was queued on it before. Host threads.
void release_behind_streams(void (*release)(void*), void* context) noexcept;

// At the end of a capture: releases that waited for it go on behind what the stream has queued.
void release_deferred() noexcept;

}  // namespace openreg
