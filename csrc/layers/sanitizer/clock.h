// Vector clocks. Every stream counts its launches; a clock says up to which launch of each stream something comes later.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace openreg::layers::sanitizer {

class Clock {
 public:
  uint64_t of(uint32_t stream) const { return stream < ticks_.size() ? ticks_[stream] : 0; }

  uint64_t advance(uint32_t stream) {
    if (stream >= ticks_.size()) ticks_.resize(stream + 1);
    return ++ticks_[stream];
  }

  void join(const Clock& other) {
    if (ticks_.size() < other.ticks_.size()) ticks_.resize(other.ticks_.size());
    for (size_t i = 0; i < other.ticks_.size(); ++i) ticks_[i] = std::max(ticks_[i], other.ticks_[i]);
  }

 private:
  std::vector<uint64_t> ticks_;
};

}  // namespace openreg::layers::sanitizer
