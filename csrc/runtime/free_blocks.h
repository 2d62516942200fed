// The free blocks of one stream in one pool.
//
// Note [Free lists]
// Blocks are reused within a stream, where stream order makes it safe at once, so each stream has its own lists. Small blocks have one
// bin per size (512 bytes to 2 MiB in steps of 512), each a doubly linked list through the blocks themselves, and two levels of
// bitmap: best fit is two find-first-set instructions, and inserting or removing touches three cache lines and allocates nothing. The
// last block freed is the first reused. Large blocks are few (at least 1 MiB each), so one vector sorted by size, then
// address, serves them; it keeps its capacity. A second such vector has the small pool's blocks of more than 2 MiB, which only
// expandable segments have.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <vector>

#include "runtime/device_block.h"
#include "runtime/event.h"

namespace openreg {

class DevicePool;

constexpr uint64_t kSmallRequest = uint64_t{1} << 20;   // the largest request served from small segments, in bytes
constexpr uint64_t kSmallSegment = uint64_t{2} << 20;   // bytes
constexpr uint64_t kOwnSegment = uint64_t{10} << 20;    // requests from here on always get a segment of their own size
constexpr uint64_t kSegmentStep = uint64_t{2} << 20;    // to a multiple of which such a segment is rounded up
constexpr uint64_t kFineSegmentStep = uint64_t{512} << 10;  // the same for smaller ones

// LOCK: the heap's mutex, for everything here.
class FreeBlocks {
 public:
  FreeBlocks(DevicePool& pool, c10::StreamId stream) : pool_(pool), stream_(stream) {}

  DevicePool& pool() const { return pool_; }
  c10::StreamId stream() const { return stream_; }

  void insert(Block* block);
  void remove(Block* block);

  // The smallest free block of at least `size_bytes` of its kind, still in the lists; null when there is none.
  Block* best_fit(uint64_t size_bytes, bool large) const;

  // Appends the free blocks that are a whole segment, and those of expandable segments that may contain pages to unmap.
  void append_releasable(std::vector<Block*>& blocks) const;

  // Appends the large blocks that are a whole segment of less than `size_bytes`, the smallest first.
  void append_outgrown(std::vector<Block*>& blocks, uint64_t size_bytes) const;

  // The unmapped blocks of this stream's expandable segments of one kind, lowest address first.
  const std::vector<Block*>& holes(bool large) const { return holes_[large ? 1 : 0]; }
  void insert_hole(Block* hole);
  void remove_hole(Block* hole);

  uint64_t segments = 0;  // with memory behind them; without one no block is at home here

  // For Note [Outgrown segments].
  Event passed;
  uint64_t passed_at = 0;  // the count of allocations when it was recorded; 0 = it was not

 private:
  static constexpr uint64_t kBins = kSmallSegment / kBlockAlignment;
  static constexpr uint64_t kWords = kBins / 64;
  static_assert(kWords == 64, "the summary is one word");

  struct LargeEntry {
    uint64_t size_bytes;
    Block* block;
  };
  static bool before(const LargeEntry& a, const LargeEntry& b) {
    return a.size_bytes != b.size_bytes ? a.size_bytes < b.size_bytes : a.block->address < b.block->address;
  }

  // A block of n * 512 bytes is in bin n - 1.
  static uint64_t bin_of(uint64_t size_bytes) { return size_bytes / kBlockAlignment - 1; }

  std::vector<LargeEntry>& sorted(const Block* block) { return block->large ? large_ : wide_; }

  DevicePool& pool_;
  const c10::StreamId stream_;
  uint64_t summary_ = 0;          // bit w: words_[w] is not zero
  uint64_t words_[kWords] = {};   // bit b of word w: bin 64 * w + b is not empty
  Block* bins_[kBins] = {};
  std::vector<LargeEntry> large_;
  std::vector<LargeEntry> wide_;  // Note [Free lists]
  std::vector<Block*> holes_[2];
};

}  // namespace openreg
