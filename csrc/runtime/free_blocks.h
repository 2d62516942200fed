// The free blocks of one stream in one pool, and the pool: the set of such lists that allocations are routed to.
//
// Note [Free lists]
// Blocks are reused within a stream, where stream order makes it safe at once, so each stream has its own lists. Small blocks have one
// bin per size (512 bytes to 2 MiB in steps of 512), each a doubly linked list through the blocks themselves, and two levels of
// bitmap: best fit is two find-first-set instructions, and inserting or removing touches three cache lines and allocates nothing. The
// last block freed is the first reused. Large blocks are few (at least 1 MiB each), so one vector sorted by size, then
// address, serves them; it keeps its capacity.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/device_block.h"

namespace openreg {

constexpr uint64_t kSmallRequest = uint64_t{1} << 20;   // the largest request served from small segments, in bytes
constexpr uint64_t kSmallSegment = uint64_t{2} << 20;   // bytes
constexpr uint64_t kLargeSegment = uint64_t{20} << 20;  // bytes; for requests below kOwnSegment
constexpr uint64_t kOwnSegment = uint64_t{10} << 20;    // requests from here on get a segment of their own size
constexpr uint64_t kSegmentStep = uint64_t{2} << 20;    // to a multiple of which such a segment is rounded up

// LOCK: the heap's mutex, for everything here.
class FreeBlocks {
 public:
  explicit FreeBlocks(c10::StreamId stream) : stream_(stream) {}

  c10::StreamId stream() const { return stream_; }

  void insert(Block* block);
  void remove(Block* block);

  // The smallest free block of at least `size_bytes` of its kind, still in the lists; null when there is none.
  Block* best_fit(uint64_t size_bytes, bool large) const;

  // Appends the free blocks that are a whole segment.
  void append_whole_segments(std::vector<Block*>& blocks) const;

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

  const c10::StreamId stream_;
  uint64_t summary_ = 0;          // bit w: words_[w] is not zero
  uint64_t words_[kWords] = {};   // bit b of word w: bin 64 * w + b is not empty
  Block* bins_[kBins] = {};
  std::vector<LargeEntry> large_;
};

// A pool: blocks never move from one to another. Pool {0, 0} is the one that everything uses which did not ask for a private one.
class DevicePool {
 public:
  explicit DevicePool(c10::MempoolId_t id) : id_(id) {}

  const c10::MempoolId_t& id() const { return id_; }

  // The stream's lists; they live as long as the pool.
  FreeBlocks& of(c10::StreamId stream) {
    if (last_ != nullptr && last_->stream() == stream) return *last_;
    return find_or_make(stream);
  }

  void append_whole_segments(std::vector<Block*>& blocks) const {
    for (const auto& lists : streams_) lists->append_whole_segments(blocks);
  }

 private:
  FreeBlocks& find_or_make(c10::StreamId stream);

  const c10::MempoolId_t id_;
  FreeBlocks* last_ = nullptr;  // the lists asked for last
  std::vector<std::unique_ptr<FreeBlocks>> streams_;
};

}  // namespace openreg
