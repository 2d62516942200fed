// Device storages: growing and shrinking one in stream order.
#pragma once

#include <c10/core/StorageImpl.h>

#include "runtime/export.h"

namespace openreg {

// Gives the storage `bytes` bytes on its own device, keeping the common prefix; 0 frees the memory. Asynchronous on the
// device's current stream. Throws for a storage that is not resizable; then nothing changed.
OPENREG_API void resize_storage(c10::StorageImpl* storage, size_t bytes);

}  // namespace openreg
