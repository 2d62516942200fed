// blocks.h: a set of aligned memory blocks that finds the block around any address.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>

namespace openreg::null {

class Blocks {
 public:
  // Null when `bytes` would exceed the limit together with what is live, or the host has no memory.
  void* allocate(uint64_t bytes, uint64_t alignment, uint64_t limit_bytes) {
    std::lock_guard guard(mutex_);
    if (bytes > limit_bytes) return nullptr;
    const uint64_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded > limit_bytes - used_bytes_) return nullptr;
    void* block = std::aligned_alloc(alignment, rounded);
    if (!block) return nullptr;
    blocks_.emplace(reinterpret_cast<uint64_t>(block), rounded);
    used_bytes_ += rounded;
    return block;
  }

  // False unless ptr is the start of a live block.
  bool free(void* ptr) {
    std::lock_guard guard(mutex_);
    const auto found = blocks_.find(reinterpret_cast<uint64_t>(ptr));
    if (found == blocks_.end()) return false;
    used_bytes_ -= found->second;
    blocks_.erase(found);
    std::free(ptr);
    return true;
  }

  bool find(const void* address, uint64_t* base, uint64_t* bytes) {
    std::lock_guard guard(mutex_);
    const uint64_t at = reinterpret_cast<uint64_t>(address);
    auto after = blocks_.upper_bound(at);
    if (after == blocks_.begin()) return false;
    --after;
    if (at - after->first >= after->second) return false;
    *base = after->first;
    *bytes = after->second;
    return true;
  }

  uint64_t used_bytes() {
    std::lock_guard guard(mutex_);
    return used_bytes_;
  }

  void free_all() {
    std::lock_guard guard(mutex_);
    for (auto& [base, bytes] : blocks_) std::free(reinterpret_cast<void*>(base));
    blocks_.clear();
    used_bytes_ = 0;
  }

 private:
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> blocks_;  // address -> bytes
  uint64_t used_bytes_ = 0;
};

}  // namespace openreg::null
