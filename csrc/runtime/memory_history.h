// What the device heaps tell a recorder of memory history. Nothing but a null check while nobody records.
//
// Note [Memory history hooks]
// A heap asks for the caller's context (its stacks) before it takes its mutex, because reading a Python stack takes the GIL, and reports
// events while it holds the mutex, so that the order of a device's events is the order in which they happened. A block keeps the context of
// its allocation while it is not free; a segment's first block keeps that of the segment.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace openreg {

using MemoryContext = std::shared_ptr<c10::GatheredContext>;

struct MemoryEvent {
  c10::CachingDeviceAllocator::TraceEntry::Action action;
  c10::DeviceIndex device;
  uint64_t address;  // for OOM the driver's free bytes
  uint64_t bytes;    // requested by the client, or those of the segment
  c10::StreamId stream;
  c10::MempoolId_t pool;
};

// Leaked once installed. Any thread.
class MemoryRecorder {
 public:
  virtual ~MemoryRecorder() = default;

  // The stacks of the calling thread if an event of this level keeps them, else null. Called without a heap's mutex.
  virtual MemoryContext gather(c10::CachingDeviceAllocator::RecordContext level) noexcept = 0;

  // Called with the device's heap locked: does not allocate device memory, wait, or take the GIL. The context may be null.
  virtual void record(const MemoryEvent& event, const MemoryContext& context) noexcept = 0;
};

inline std::atomic<MemoryRecorder*> memory_recorder{nullptr};

inline MemoryContext memory_context(c10::CachingDeviceAllocator::RecordContext level) noexcept {
  MemoryRecorder* recorder = memory_recorder.load(std::memory_order_acquire);
  return C10_LIKELY(recorder == nullptr) ? MemoryContext() : recorder->gather(level);
}

}  // namespace openreg
