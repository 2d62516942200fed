// The memory of one device: blocks cut from HAL segments, their free lists, deferred reuse, and the statistics.
//
// Note [Stream order]
// A block belongs to the stream that was current when it was allocated. When the client gives it back it returns to that stream's
// free lists and may be handed out at once: whatever the next owner enqueues on the stream runs after what the last owner
// enqueued. A block that record_stream named on another stream first waits, as `pending`, for an event recorded there
// when it was given back. Nothing here ever waits, except flush().
//
// Note [Giving segments back]
// The HAL takes a segment back only when no queued task uses it, and free blocks may well have queued work: that is what stream order is
// for. flush() therefore marks the free whole segments with an epoch, synchronises the device with the mutex released (the wait
// may run tasks and let Ctrl-C through), and gives back the segments that still carry a mark of its own epoch or an
// earlier one. Handing a block out clears its mark, so that a segment which another thread used in the meantime stays.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "runtime/block_table.h"
#include "runtime/device_block.h"
#include "runtime/event.h"
#include "runtime/free_blocks.h"
#include "runtime/memory_history.h"

namespace openreg {

class DeviceHeap {
 public:
  DeviceHeap(c10::DeviceIndex device, BlockTable& table);
  DeviceHeap(const DeviceHeap&) = delete;

  // Memory of at least `bytes` (> 0) for use on `stream` of this device. After a flush and a retry throws c10::OutOfMemoryError; a request
  // that exceeds the device throws it at once and flushes nothing. Throws a late error that the flush meets. Any host thread.
  void* allocate(size_t bytes, c10::StreamId stream);

  // Takes back the block that begins at `address`. False when that is no block in use (it was freed before). Any host thread.
  bool release(Block* block, const void* address) noexcept;

  // Defers the reuse of the block that begins at `address` until `stream` has finished what it will have queued when the block is given
  // back. Does nothing when it is no block in use, and for the block's own stream.
  void record_stream(Block* block, const void* address, c10::Stream stream);

  // Gives cached segments back to the driver: waits for the device and for streams that pending blocks wait for.
  void empty_cache();

  c10::CachingDeviceAllocator::DeviceStats stats();
  void reset_accumulated_stats();
  void reset_peak_stats();

 private:
  struct Waiting {
    Event event;
    Block* block;
  };
  // Events of one stream complete in order, so only the front is ever asked.
  struct WaitingQueue {
    explicit WaitingQueue(c10::Stream s) : stream(s) {}
    const c10::Stream stream;
    std::deque<Waiting> waiting;
    std::vector<Event> spare;  // completed, to be recorded again
  };

  void record(c10::CachingDeviceAllocator::TraceEntry::Action action, const Block& block, uint64_t bytes, const MemoryContext& context) const;
  Block* grow(FreeBlocks& home, uint64_t size_bytes, size_t requested_bytes, const MemoryContext& context,
              std::unique_lock<std::mutex>& lock);
  Block* new_segment(FreeBlocks& home, uint64_t size_bytes, bool large, const MemoryContext& context);
  void trim(Block* block, uint64_t size_bytes);
  void insert_free(Block* block);
  void remove_free(Block* block);
  void coalesce(Block* block, const MemoryContext& context);
  void defer(Block* block, std::unique_lock<std::mutex>& lock);
  WaitingQueue& waiting_queue(c10::Stream stream);
  void collect_completed();
  void flush(std::unique_lock<std::mutex>& lock);
  void give_back(Block* segment);
  [[noreturn]] void throw_out_of_memory(size_t requested_bytes, const MemoryContext& context, std::unique_lock<std::mutex>& lock);

  const c10::DeviceIndex device_;
  BlockTable& table_;
  std::mutex mutex_;  // LOCK: everything below. Never held across a wait, a task, or anything that takes the GIL.
  c10::CachingDeviceAllocator::DeviceStats stats_;
  BlockArena arena_;
  DevicePool pool_;                  // the pool {0, 0}
  std::deque<WaitingQueue> queues_;  // one per stream that ever used a block of another
  size_t waiting_count_ = 0;         // entries in all queues
  uint64_t epoch_ = 0;               // Note [Giving segments back]
};

}  // namespace openreg
