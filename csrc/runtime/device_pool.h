// A pool: the set of free lists that allocations are routed to. Blocks never move from one pool to another.
//
// Pool {0, 0} is the one that everything uses which did not ask for a private one. A private pool lives while somebody counts on it
// (a MemPool, a graph) or has memory from it; nothing else is allocated from its cached memory, which is not given back before.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Stream.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/free_blocks.h"
#include "runtime/stream.h"

namespace openreg {

// LOCK: the heap's mutex, for everything here.
class DevicePool {
 public:
  explicit DevicePool(c10::MempoolId_t id) : id_(id) {}

  const c10::MempoolId_t& id() const { return id_; }
  bool is_private() const { return id_ != c10::MempoolId_t{0, 0}; }

  // The stream's lists. They live as long as the pool, or as a stream that somebody else made.
  FreeBlocks& of(c10::StreamId stream) {
    if (last_ != nullptr && last_->stream() == stream) return *last_;
    return find_or_make(stream);
  }

  void append_releasable(std::vector<Block*>& blocks) const {
    for (const auto& lists : streams_) lists->append_releasable(blocks);
  }

  bool has_segments() const {
    return std::any_of(streams_.begin(), streams_.end(), [](const auto& lists) { return lists->segments != 0; });
  }

  int use_count = 0;         // of a private pool: 0 lets its cached memory go
  int allocating = 0;        // calls that are looking for memory for it, perhaps with the mutex released
  bool no_split = false;     // a segment serves one block
  bool use_on_oom = false;   // its free blocks serve other requests before those fail

 private:
  FreeBlocks& find_or_make(c10::StreamId stream) {
    for (const auto& lists : streams_) {
      if (lists->stream() == stream) return *(last_ = lists.get());
    }
    for (auto& lists : streams_) {  // those of a stream that does not exist any more make room
      if (allocating != 0 || lists->segments != 0 || stream_exists(lists->stream())) continue;
      lists = std::make_unique<FreeBlocks>(*this, stream);
      return *(last_ = lists.get());
    }
    streams_.push_back(std::make_unique<FreeBlocks>(*this, stream));
    return *(last_ = streams_.back().get());
  }

  const c10::MempoolId_t id_;
  FreeBlocks* last_ = nullptr;  // the lists asked for last
  std::vector<std::unique_ptr<FreeBlocks>> streams_;
};

}  // namespace openreg
