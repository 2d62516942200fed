// address_range.h: hands out pieces of a range of addresses. Knows no memory, only numbers.
#pragma once

#include <cstdint>
#include <map>

namespace openreg::sim {

// First fit with coalescing. The caller locks.
class AddressRange {
 public:
  AddressRange(uint64_t base, uint64_t bytes) { free_.emplace(base, bytes); }

  // Takes `bytes` at a multiple of `alignment` (a power of two). 0 when no hole is large enough.
  uint64_t take(uint64_t bytes, uint64_t alignment) {
    for (auto hole = free_.begin(); hole != free_.end(); ++hole) {
      const uint64_t begin = hole->first, end = begin + hole->second;
      const uint64_t at = (begin + alignment - 1) & ~(alignment - 1);
      if (at < begin || at > end || end - at < bytes) continue;
      if (at + bytes < end) free_.emplace(at + bytes, end - at - bytes);
      if (at > begin)
        hole->second = at - begin;
      else
        free_.erase(hole);
      return at;
    }
    return 0;
  }

  // Gives back exactly what take returned.
  void give(uint64_t at, uint64_t bytes) {
    auto next = free_.lower_bound(at);
    if (next != free_.end() && at + bytes == next->first) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second == at) {
        before->second += bytes;
        return;
      }
    }
    free_.emplace_hint(next, at, bytes);
  }

 private:
  std::map<uint64_t, uint64_t> free_;  // address -> bytes; neighbours never touch
};

}  // namespace openreg::sim
