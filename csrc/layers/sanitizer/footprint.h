// The bytes that an operand touches: a strided set, and the exact test whether two of them have a byte in common.
#pragma once

#include <cstdint>

namespace openreg::layers::sanitizer {

// Runs of `run_bytes` bytes at begin + sum of index * stride over the dimensions, the largest stride first. Made canonical: no dimension of
// one, no repeated address by a stride of zero, and neighbours joined, so that a dense tensor is one run.
struct Footprint {
  static constexpr int kDims = 6;

  uintptr_t begin = 0;
  uintptr_t end = 0;  // one past the last byte of the set; equal to begin for an empty one
  uint64_t run_bytes = 0;
  int dims = 0;
  bool exact = true;  // false: the set had more dimensions than fit, and this one contains it
  struct Dim {
    uint64_t count, stride_bytes;
  } dim[kDims];

  static Footprint bytes(const void* base, uint64_t count);
  // Sizes and strides in elements, strides not negative.
  static Footprint elements(const void* base, uint64_t element_bytes, int dims, const int64_t* sizes, const int64_t* strides);

  bool empty() const { return begin == end; }
  bool dense() const { return dims == 0; }
};

enum class Overlap { no, yes, unknown };

// Whether the sets share a byte. `unknown` where the search was given up, or a set is not exact and they may.
Overlap overlap(const Footprint& a, const Footprint& b);

// Whether every byte of `inner` lies in `outer`, as far as that is easy to see.
bool covers(const Footprint& outer, const Footprint& inner);

// Calls run(begin, end) for the runs of the set, at most `limit` of them. False when there are more.
template <class Run>
bool for_each_run(const Footprint& set, uint64_t limit, Run&& run) {
  uint64_t runs = 1;
  for (int i = 0; i < set.dims; ++i) {
    runs *= set.dim[i].count;
    if (runs > limit) return false;
  }
  if (set.empty()) return true;
  for (uint64_t number = 0; number < runs; ++number) {
    uint64_t rest = number;
    uintptr_t begin = set.begin;
    for (int i = set.dims; i-- > 0;) {
      begin += rest % set.dim[i].count * set.dim[i].stride_bytes;
      rest /= set.dim[i].count;
    }
    run(begin, begin + set.run_bytes);
  }
  return true;
}

}  // namespace openreg::layers::sanitizer
