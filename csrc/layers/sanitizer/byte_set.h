// A set of addresses, kept as intervals: which bytes of an allocation somebody has written.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace openreg::layers::sanitizer {

class ByteSet {
 public:
  void add(uintptr_t begin, uintptr_t end) {
    if (begin >= end) return;
    auto next = intervals_.upper_bound(begin);
    if (next != intervals_.begin()) {
      const auto before = std::prev(next);
      if (before->second >= end) return;
      if (before->second >= begin) {
        begin = before->first;
        next = intervals_.erase(before);
      }
    }
    while (next != intervals_.end() && next->first <= end) {
      if (next->second > end) end = next->second;
      next = intervals_.erase(next);
    }
    intervals_.emplace(begin, end);
  }

  void remove(uintptr_t begin, uintptr_t end) {
    if (begin >= end) return;
    auto next = intervals_.lower_bound(begin);
    if (next != intervals_.begin()) {
      const auto before = std::prev(next);
      const uintptr_t before_end = before->second;
      if (before_end > begin) before->second = begin;
      if (before_end > end) intervals_.emplace(end, before_end);
    }
    while (next != intervals_.end() && next->first < end) {
      const uintptr_t next_end = next->second;
      next = intervals_.erase(next);
      if (next_end > end) intervals_.emplace(end, next_end);
    }
  }

  // The first address of [begin, end) that is not in the set; end when all are.
  uintptr_t first_missing(uintptr_t begin, uintptr_t end) const {
    auto next = intervals_.upper_bound(begin);
    if (next == intervals_.begin()) return begin;
    const auto before = std::prev(next);
    if (before->second <= begin) return begin;
    return before->second < end ? before->second : end;
  }

  // Calls f(begin, end) for the parts of [begin, end) that are not in the set.
  template <class F>
  void for_each_missing(uintptr_t begin, uintptr_t end, F&& f) const {
    while (begin < end) {
      const uintptr_t from = first_missing(begin, end);
      if (from == end) return;
      const auto next = intervals_.upper_bound(from);
      begin = next == intervals_.end() || next->first > end ? end : next->first;
      f(from, begin);
    }
  }

  // Whether any address of [begin, end) is in the set.
  bool touches(uintptr_t begin, uintptr_t end) const {
    auto next = intervals_.lower_bound(begin);
    if (next != intervals_.end() && next->first < end) return true;
    return next != intervals_.begin() && std::prev(next)->second > begin;
  }

  // Calls f(begin, end) for the parts of the set inside [begin, end).
  template <class F>
  void for_each(uintptr_t begin, uintptr_t end, F&& f) const {
    auto next = intervals_.upper_bound(begin);
    if (next != intervals_.begin() && std::prev(next)->second > begin) --next;
    for (; next != intervals_.end() && next->first < end; ++next) f(next->first < begin ? begin : next->first, next->second > end ? end : next->second);
  }

  void clear() { intervals_.clear(); }

 private:
  std::map<uintptr_t, uintptr_t> intervals_;  // begin -> end; disjoint and not adjacent
};

}  // namespace openreg::layers::sanitizer
