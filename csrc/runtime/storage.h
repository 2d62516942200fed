// Device storages: growing and shrinking one in stream order, and memory for copies on write.
#pragma once

#include <c10/core/StorageImpl.h>

#include "runtime/export.h"

namespace openreg {

// Gives the storage `bytes` bytes on its own device, keeping the common prefix; 0 frees the memory. Asynchronous on the
// device's current stream. Throws for a storage that is not resizable; then nothing changed.
OPENREG_API void resize_storage(c10::StorageImpl* storage, size_t bytes);

// Makes the storage take its later memory from its own device. A copy on write asks the storage's allocator, which knows no device
// but the current one.
void bind_allocator_to_device(c10::StorageImpl* storage);

}  // namespace openreg
