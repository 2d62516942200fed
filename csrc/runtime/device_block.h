// A block: a stretch of one HAL segment that is free, in use, or waiting for the streams that used it.
#pragma once

#include <c10/core/Stream.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/memory_history.h"

namespace openreg {

class DeviceHeap;
class ExpandableSegment;
class FreeBlocks;

constexpr uint64_t kBlockAlignment = 512;  // every block begins and ends on a multiple of this, in bytes

enum class BlockState : uint8_t {
  unused,    // in the arena
  free,      // in its home's free lists
  in_use,    // a client has it
  pending,   // given back by the client; streams of record_stream still work on it
  unmapped,  // addresses of an expandable segment with no memory behind them
};

// LOCK: every field but heap belongs to the heap's mutex.
struct Block {
  char* address = nullptr;  // device address; the host never reads through it
  uint64_t size_bytes = 0;
  uint64_t requested_bytes = 0;  // what the client asked for, while in_use
  Block* lower = nullptr;        // the neighbours in the same segment
  Block* upper = nullptr;
  Block* bin_previous = nullptr;  // links of a small block's free list; bin_next also links the arena
  Block* bin_next = nullptr;
  FreeBlocks* home = nullptr;  // the free lists of its pool and stream
  DeviceHeap* heap = nullptr;  // constant for the life of the object
  ExpandableSegment* expandable = nullptr;  // the segment, if it is one that grows
  uint64_t idle_epoch = 0;     // Note [Giving segments back]; 0 = not marked
  uint64_t freed_at = 0;       // on the heap's count of allocations, while free
  uint32_t pending_events = 0;
  BlockState state = BlockState::unused;
  bool large = false;
  bool cached = true;             // false: goes back to the driver when it is free
  bool oversize = false;          // counted as an oversize allocation
  bool oversize_segment = false;  // counted as an oversize segment
  MemoryContext context;          // of the allocation, until the block is free
  MemoryContext segment_context;  // in the lowest block of a segment: of the segment's allocation
  std::vector<c10::Stream> users;  // other streams that record_stream named

  bool whole_segment() const { return lower == nullptr && upper == nullptr && expandable == nullptr; }
};

// Hands out Block objects. They are never given back to the system, so a stale Block* still points to a Block.
class BlockArena {
 public:
  explicit BlockArena(DeviceHeap* heap) : heap_(heap) {}

  Block* make() {
    if (unused_ == nullptr) refill();
    Block* block = unused_;
    unused_ = block->bin_next;
    block->bin_next = nullptr;
    return block;
  }

  void recycle(Block* block) {
    block->state = BlockState::unused;
    block->lower = block->upper = nullptr;
    block->expandable = nullptr;
    block->idle_epoch = 0;
    block->cached = true;
    block->oversize = block->oversize_segment = false;
    block->segment_context.reset();
    block->bin_next = unused_;
    unused_ = block;
  }

  // Calls f(block) for the lowest block of every segment, in no particular order.
  template <class F>
  void for_each_segment(F&& f) const {
    for (const auto& chunk : chunks_) {
      for (size_t i = 0; i < kChunk; ++i) {
        if (chunk[i].state != BlockState::unused && chunk[i].lower == nullptr) f(chunk[i]);
      }
    }
  }

 private:
  static constexpr size_t kChunk = 256;

  void refill() {
    chunks_.push_back(std::make_unique<Block[]>(kChunk));
    for (size_t i = kChunk; i-- > 0;) {
      Block* block = &chunks_.back()[i];
      block->heap = heap_;
      block->bin_next = unused_;
      unused_ = block;
    }
  }

  DeviceHeap* heap_;
  Block* unused_ = nullptr;
  std::vector<std::unique_ptr<Block[]>> chunks_;
};

}  // namespace openreg
