// Pinned host memory on core's CachingHostAllocator: blocks come from the HAL and are reused after the streams that used them.
#pragma once

#include <ATen/core/CachingHostAllocator.h>

#include "runtime/export.h"

namespace openreg {

// The one host allocator; leaked on purpose.
OPENREG_API at::HostAllocator* host_allocator();

// Makes it torch's pinned-memory allocator for PrivateUse1.
void register_host_allocator();

// Whether the address lies in memory that this allocator pinned.
OPENREG_API bool is_pinned(const void* pointer);

// Keeps a pinned block from being reused before the stream has finished what it has queued now. False when the pointer is in no pinned block.
OPENREG_API bool record_pinned(const c10::DataPtr& pointer, c10::Stream stream);

}  // namespace openreg
