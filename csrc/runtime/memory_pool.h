// Private memory pools: memory of one device that only chosen allocations come from and go back to.
//
// A pool exists on a device from the first retain until it is released as often and its last segment has gone back to the driver. Its cached
// memory stays reserved while somebody retains it; then the next flush takes it. Any thread.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Stream.h>

#include <functional>

#include "runtime/export.h"

namespace openreg {

// An id that no pool has had: {0, n} for a pool that a program made, {n, 0} for one that a graph made.
OPENREG_API c10::MempoolId_t new_memory_pool_id(bool by_program = true);

// Counts one more user. The first call makes the pool; only it may choose: with no_split a segment serves one block, with use_on_oom the
// pool's free blocks serve other requests before those run out of memory.
OPENREG_API void retain_memory_pool(c10::DeviceIndex device, c10::MempoolId_t id, bool no_split = false, bool use_on_oom = false);
OPENREG_API void release_memory_pool(c10::DeviceIndex device, c10::MempoolId_t id);
OPENREG_API int memory_pool_use_count(c10::DeviceIndex device, c10::MempoolId_t id);

// From now on allocations on streams that the filter accepts, or those of the calling thread, go to the pool; what was begun last counts.
// Retains the pool: a release belongs to each begin. The filter is called with the heap locked.
OPENREG_API void begin_allocate_to_pool(c10::DeviceIndex device, c10::MempoolId_t id, std::function<bool(c10::StreamId)> filter);
OPENREG_API void begin_allocate_current_thread_to_pool(c10::DeviceIndex device, c10::MempoolId_t id);

// Ends the last begin of the pool, by a filter or by the calling thread. Does not release.
OPENREG_API void end_allocate_to_pool(c10::DeviceIndex device, c10::MempoolId_t id);

}  // namespace openreg
