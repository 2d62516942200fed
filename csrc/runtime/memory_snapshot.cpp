// Reads the heaps and the recorder.
#include "runtime/memory_snapshot.h"

#include <algorithm>

#include "runtime/device.h"
#include "runtime/device_heap.h"
#include "runtime/memory_recorder.h"

namespace openreg {

namespace {

using c10::CachingDeviceAllocator::BlockInfo;
using c10::CachingDeviceAllocator::SegmentInfo;
using c10::CachingDeviceAllocator::TraceEntry;

SegmentInfo segment_beginning_with(const Block& block, c10::DeviceIndex device) {
  SegmentInfo segment;
  segment.device = device;
  segment.address = reinterpret_cast<size_t>(block.address);
  segment.stream = reinterpret_cast<void*>(block.home->stream());
  segment.is_large = block.large;
  segment.is_expandable = block.expandable != nullptr;
  segment.owner_private_pool_id = block.home->pool().id();
  segment.context_when_allocated = block.segment_context;
  return segment;
}

void append(SegmentInfo& segment, const Block& block) {
  const bool in_use = block.state == BlockState::in_use, active = in_use || block.state == BlockState::pending;
  BlockInfo info;
  info.size = block.size_bytes;
  info.requested_size = active ? block.requested_bytes : 0;
  info.allocated = in_use;
  info.active = active;
  info.context_when_allocated = block.context;
  segment.total_size += info.size;
  segment.requested_size += info.requested_size;
  if (in_use) segment.allocated_size += info.size;
  if (active) segment.active_size += info.size;
  segment.blocks.push_back(std::move(info));
}

// Of an expandable segment each stretch with memory behind it is a segment of the snapshot. LOCK: the heap's mutex.
void append_segments(std::vector<SegmentInfo>& segments, const Block& lowest, c10::DeviceIndex device) {
  bool begins = true;
  for (const Block* block = &lowest; block != nullptr; block = block->upper) {
    const bool mapped = block->state != BlockState::unmapped;
    if (mapped && begins) segments.push_back(segment_beginning_with(*block, device));
    if (mapped) append(segments.back(), *block);
    begins = !mapped;
  }
}

}  // namespace

void DeviceHeap::snapshot(std::vector<SegmentInfo>& segments, std::vector<TraceEntry>* trace) {
  const size_t first = segments.size();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    arena_.for_each_segment([&](const Block& lowest) { append_segments(segments, lowest, device_); });
    if (trace != nullptr) {
      if (MemoryRecorder* recorder = memory_recorder.load(std::memory_order_acquire)) {
        const auto active_bytes = static_cast<uint64_t>(stats_.active_bytes[0].current);
        recorder->record({TraceEntry::SNAPSHOT, device_, 0, active_bytes, 0, {0, 0}}, nullptr);
      }
      *trace = recorded_trace(device_);
    }
  }
  std::sort(segments.begin() + static_cast<ptrdiff_t>(first), segments.end(),
            [](const SegmentInfo& a, const SegmentInfo& b) { return a.address < b.address; });
}

MemoryContext DeviceHeap::context_of(Block* block, const void* address) {
  std::lock_guard<std::mutex> lock(mutex_);
  return block->state == BlockState::in_use && block->address == address ? block->context : nullptr;
}

MemorySnapshot memory_snapshot(std::optional<c10::DeviceIndex> device, bool with_traces) {
  if (device) check_device(*device);
  MemorySnapshot result;
  result.device_traces.resize(static_cast<size_t>(device_count()));
  for (c10::DeviceIndex index = 0; index < device_count(); ++index) {
    DeviceHeap* heap = find_heap(index);
    if (heap == nullptr || (device && *device != index)) continue;
    heap->snapshot(result.segments, with_traces ? &result.device_traces[static_cast<size_t>(index)] : nullptr);
  }
  if (with_traces) result.annotations = recorded_annotations();

  const auto to_unix_ns = recorded_clock();
  const auto convert = [&](auto& time) { time.t_ = to_unix_ns(time.approx_t_) / 1000; };
  for (auto& trace : result.device_traces) {
    for (TraceEntry& entry : trace) convert(entry.time_);
  }
  for (auto& annotation : result.annotations) convert(annotation.time_);
  return result;
}

MemoryContext allocation_context(const void* address) {
  Block* block = block_table().find(address);
  return block == nullptr ? nullptr : block->heap->context_of(block, address);
}

}  // namespace openreg
