// What the caching allocator holds at one moment, and how it came to it: segments, blocks, traces.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <optional>
#include <vector>

#include "runtime/export.h"
#include "runtime/memory_history.h"

namespace openreg {

// Times are microseconds since the epoch.
struct MemorySnapshot {
  std::vector<c10::CachingDeviceAllocator::SegmentInfo> segments;  // by device, then address
  std::vector<std::vector<c10::CachingDeviceAllocator::TraceEntry>> device_traces;  // one per visible device
  std::vector<c10::CachingDeviceAllocator::AnnotationEntry> annotations;
};

// Segments and trace of a device are of the same moment, and the trace ends with an entry for the snapshot. With `device` the others
// are left out: no segments, an empty trace. Throws for a device that does not exist. Any thread.
OPENREG_API MemorySnapshot memory_snapshot(std::optional<c10::DeviceIndex> device = std::nullopt, bool with_traces = true);

// The context of the allocation that begins at the address; null when there is none, or when nobody recorded it. Any thread.
OPENREG_API MemoryContext allocation_context(const void* address);

}  // namespace openreg
