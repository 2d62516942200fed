// The memory of one device: blocks cut from HAL segments, their free lists, deferred reuse, and the statistics.
//
// Note [Stream order]
// A block belongs to the stream that was current when it was allocated. When the client gives it back it returns to that stream's
// free lists and may be handed out at once: whatever the next owner enqueues on the stream runs after what the last owner
// enqueued. A block that record_stream named on another stream first waits, as `pending`, for an event recorded there
// when it was given back. Nothing here ever waits, except flush().
//
// Note [Outgrown segments]
// A large request that no free block serves gets a new segment. The free segments of its stream are all too small for it, and their
// successors will be cut from the new one: the smallest go back, up to the size of the request, so that reserved memory follows tensors
// that grow. Nothing waits. An event lies behind the stream's work at such a request; the next one that finds it complete, or the same one
// on an idle stream, gives back what was free when it was recorded and still is. Private pools keep what they have.
//
// Note [Giving segments back]
// The HAL takes memory back only when no queued task uses it, and free blocks may well have queued work: that is what stream order is
// for. flush() therefore marks the blocks that it wants to give back with an epoch, synchronises the device with the mutex released (the
// wait may run tasks and let Ctrl-C through), and gives back those that still carry a mark of its own epoch or an
// earlier one. Handing a block out or merging it clears its mark, so that memory which another thread used in the meantime stays.
// While a stream is being captured nothing is waited for and nothing is given back.
// A block that was made while caching was off waits, once freed, for an event of its own stream too, and then goes back without a flush.
//
// Note [Expandable segments]
// An expandable segment is a chain of blocks like any other, some of them unmapped: `holes`, which lie in lists of their own. A
// request that no free block serves maps the beginning of the lowest hole that, with the free blocks beside it, is large enough.
// flush() unmaps the whole pages inside free blocks. A segment without a mapped page is released.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/allocator_config.h"
#include "runtime/block_table.h"
#include "runtime/device_block.h"
#include "runtime/device_pool.h"
#include "runtime/device_stats.h"
#include "runtime/event.h"
#include "runtime/expandable_segment.h"
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

  // Gives cached memory back to the driver: that of the pool {0, 0} and of private pools that nobody counts on, or that of the named
  // pool alone. Waits for the device and for streams that pending blocks wait for.
  void empty_cache(c10::MempoolId_t pool);

  // Reserved memory stays at or below this part of the device's. Memory above it is not given back.
  void set_memory_fraction(double fraction);
  double memory_fraction();

  // Private pools: see memory_pool.h. They throw for a pool that this heap does not have.
  using StreamFilter = std::function<bool(c10::StreamId)>;
  void retain_pool(c10::MempoolId_t id, bool no_split, bool use_on_oom);
  void release_pool(c10::MempoolId_t id);
  int pool_use_count(c10::MempoolId_t id);
  void begin_routing(c10::MempoolId_t id, StreamFilter filter);
  void end_routing(c10::MempoolId_t id);

  // Lets blocks that were given back while a stream that used them was being captured wait for that stream now.
  void record_deferred();

  c10::DeviceIndex device() const { return device_; }

  DeviceStats stats();
  void reset_accumulated_stats();
  void reset_peak_stats();

  // Appends the segments by address, and with `trace` the recorded trace of the same moment. Any thread.
  void snapshot(std::vector<c10::CachingDeviceAllocator::SegmentInfo>& segments, std::vector<c10::CachingDeviceAllocator::TraceEntry>* trace);

  // The context of the allocation that begins at `address`, null for a block that is not in use. Any thread.
  MemoryContext context_of(Block* block, const void* address);

 private:
  using Use = std::pair<Block*, c10::Stream>;  // a pending block, and a stream that it has to wait for
  struct Waiting {
    std::shared_ptr<Event> event;  // shared with a thread that asks it without the mutex
    Block* block;
  };
  // Events of one stream complete in order, so only the front is ever asked.
  struct WaitingQueue {
    explicit WaitingQueue(c10::Stream s) : stream(s) {}
    c10::Stream stream;
    std::deque<Waiting> waiting;
    uint64_t taken = 0;  // entries that have left `waiting`: tells whether the front is the one that was asked
    std::vector<std::shared_ptr<Event>> spare;  // completed, to be recorded again
  };
  // Allocations that go to a private pool: those of one thread, or those on the streams that the filter accepts.
  struct Route {
    DevicePool* pool;
    std::thread::id thread;
    StreamFilter filter;
  };
  struct Request {
    const AllocatorConfig& config;
    FreeBlocks& home;
    const size_t bytes;         // what the client asked for
    const uint64_t size_bytes;  // rounded
    const bool large;
    const bool cached;
    const MemoryContext& context;
  };
  // While it lives the pool is not dropped; a pool that nobody can name any more goes with the last one. LOCK: mutex_, at both ends.
  class PoolInUse {
   public:
    PoolInUse(DeviceHeap& heap, DevicePool& pool) : heap_(heap), pool_(pool) { ++pool_.allocating; }
    ~PoolInUse() {
      --pool_.allocating;
      heap_.drop_pool_if_unused(pool_);
    }
    PoolInUse(const PoolInUse&) = delete;

   private:
    DeviceHeap& heap_;
    DevicePool& pool_;
  };
  using Lock = std::unique_lock<std::mutex>;
  using Action = c10::CachingDeviceAllocator::TraceEntry::Action;

  // Calls f without the mutex. It is held again afterwards, also when f throws.
  template <class F>
  static void unlocked(Lock& lock, F&& f) {
    lock.unlock();
    try {
      f();
    } catch (...) {
      lock.lock();
      throw;
    }
    lock.lock();
  }

  // device_heap.cpp
  void record(Action action, const Block& block, uint64_t bytes, const MemoryContext& context) const;
  DevicePool& pool_for(c10::StreamId stream);
  Block* find_free(FreeBlocks& home, const Request& request) const;
  void trim(Block* block, const Request& request);
  Block* split(Block* block, uint64_t size_bytes);
  void absorb_upper(Block* block);
  void insert_free(Block* block);
  void remove_free(Block* block);
  Block* merge(Block* block);
  void finish(Block* block, const MemoryContext& context);
  void defer(Block* block, Lock& lock);
  void await(std::vector<Use> uses, Lock& lock);
  WaitingQueue& waiting_queue(c10::Stream stream);
  void collect_completed(Lock& lock);

  // device_heap_segments.cpp
  Block* grow(const Request& request, Lock& lock);
  Block* from_driver(const Request& request);
  Block* new_segment(const Request& request, uint64_t size_bytes);
  Block* extend(const Request& request);
  Block* map_hole(Block* hole, const Request& request, uint64_t size_bytes);
  void release_hole(Block* hole);
  bool allowed(uint64_t more_bytes) const;
  void count_reserved(DevicePool& pool, bool large, uint64_t size_bytes);
  void count_given_back(DevicePool& pool, bool large, uint64_t size_bytes);
  void collect_garbage(const Request& request, Lock& lock);
  void give_back_outgrown(const Request& request, Lock& lock);
  void flush(c10::MempoolId_t scope, Lock& lock);
  void await_pending(Lock& lock);
  void give_back_idle(const std::vector<Block*>& chosen, c10::MempoolId_t scope, Lock& lock);
  std::vector<Block*> releasable(c10::MempoolId_t scope) const;
  void give_back(Block* block);
  void unmap_pages(Block* block);
  DevicePool& private_pool(c10::MempoolId_t id) const;
  void drop_pool_if_unused(DevicePool& pool);
  void fail(const Request& request, Lock& lock);  // always throws

  const c10::DeviceIndex device_;
  BlockTable& table_;
  std::mutex mutex_;  // LOCK: everything below. Never held across a wait, a query, a task, or anything that takes the GIL.
  DeviceStats stats_;
  BlockArena arena_;
  DevicePool pool_;                  // the pool {0, 0}
  std::vector<std::unique_ptr<DevicePool>> private_pools_;
  std::vector<Route> routes_;        // the last that fits counts
  std::vector<std::unique_ptr<ExpandableSegment>> expandable_;
  std::deque<WaitingQueue> queues_;  // one per stream that used a block of another; never erased, because threads use them without the mutex
  size_t waiting_count_ = 0;         // entries in all queues
  std::vector<Use> deferred_;        // of streams that are being captured
  uint64_t epoch_ = 0;               // Note [Giving segments back]
  uint64_t allocations_ = 0;         // ever made: the clock of garbage collection
  uint64_t total_bytes_ = 0;         // the device's memory
  const uint64_t granularity_bytes_;
  double fraction_ = 1;
};

// The device's heap, made at its first use. Throws for a device that does not exist. Any thread; hot.
DeviceHeap& device_heap(c10::DeviceIndex device);

// The same, or null when nothing was ever allocated there. Any thread.
DeviceHeap* find_heap(c10::DeviceIndex device) noexcept;

// The table of every heap's blocks. Any thread.
const BlockTable& block_table() noexcept;

}  // namespace openreg
