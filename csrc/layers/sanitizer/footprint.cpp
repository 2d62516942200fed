// Strided sets.
#include "layers/sanitizer/footprint.h"

#include <algorithm>

namespace openreg::layers::sanitizer {

namespace {

using Dim = Footprint::Dim;

// A set on the way through the search: the dimensions from `first` on, moved to `begin`.
struct Part {
  const Footprint* set;
  int first;
  int64_t begin;

  int64_t extent() const {  // bytes from begin to the end of the last run
    uint64_t bytes = set->run_bytes;
    for (int i = first; i < set->dims; ++i) bytes += (set->dim[i].count - 1) * set->dim[i].stride_bytes;
    return static_cast<int64_t>(bytes);
  }
  bool is_run() const { return first == set->dims; }
  const Dim& dim() const { return set->dim[first]; }
  Part inner(int64_t index) const { return {set, first + 1, begin + index * static_cast<int64_t>(dim().stride_bytes)}; }
};

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// The search takes one dimension after the other: of the two sets it splits the one with the larger stride, and looks only at the indices
// whose part can reach the other set. Two sets with one stride differ by a difference of indices, of which few can meet. So tensors
// cut from one matrix need a handful of steps, and `budget` ends the cases that are as hard as they can be.
Overlap search(const Part& a, const Part& b, int& budget) {
  if (--budget < 0) return Overlap::unknown;
  const int64_t a_extent = a.extent(), b_extent = b.extent();
  if (a.begin + a_extent <= b.begin || b.begin + b_extent <= a.begin) return Overlap::no;
  if (a.is_run() && b.is_run()) return Overlap::yes;

  Overlap result = Overlap::no;
  const auto note = [&](Overlap found) {
    if (found != Overlap::no) result = found == Overlap::yes ? found : Overlap::unknown;
    return result == Overlap::yes;
  };
  if (!a.is_run() && !b.is_run() && a.dim().stride_bytes == b.dim().stride_bytes) {
    const auto stride = static_cast<int64_t>(a.dim().stride_bytes);
    const int64_t distance = a.begin - b.begin;  // of the parts at equal indices; d = index in a - index in b
    const int64_t a_inner = a.inner(0).extent(), b_inner = b.inner(0).extent();
    const int64_t lowest = std::max(ceil_div(-distance - a_inner + 1, stride), 1 - static_cast<int64_t>(b.dim().count));
    const int64_t highest = std::min(floor_div(b_inner - distance - 1, stride), static_cast<int64_t>(a.dim().count) - 1);
    for (int64_t d = lowest; d <= highest; ++d) {
      if (note(search(a.inner(std::max<int64_t>(d, 0)), b.inner(std::max<int64_t>(-d, 0)), budget))) return result;
      if (budget < 0) return Overlap::unknown;
    }
    return result;
  }
  const bool split_a = b.is_run() || (!a.is_run() && a.dim().stride_bytes > b.dim().stride_bytes);
  const Part& split = split_a ? a : b;
  const Part& other = split_a ? b : a;
  const auto stride = static_cast<int64_t>(split.dim().stride_bytes);
  const int64_t inner = split.inner(0).extent();
  const int64_t lowest = std::max<int64_t>(ceil_div(other.begin - split.begin - inner + 1, stride), 0);
  const int64_t highest =
      std::min(floor_div(other.begin + other.extent() - 1 - split.begin, stride), static_cast<int64_t>(split.dim().count) - 1);
  for (int64_t i = lowest; i <= highest; ++i) {
    if (note(search(split.inner(i), other, budget))) return result;
    if (budget < 0) return Overlap::unknown;
  }
  return result;
}

}  // namespace

Footprint Footprint::bytes(const void* base, uint64_t count) {
  Footprint set;
  set.begin = reinterpret_cast<uintptr_t>(base);
  set.end = set.begin + count;
  set.run_bytes = count;
  return set;
}

Footprint Footprint::elements(const void* base, uint64_t element_bytes, int dims, const int64_t* sizes, const int64_t* strides) {
  constexpr int kMost = 64;
  Footprint set = bytes(base, element_bytes);
  Dim all[kMost];
  int count = 0;
  uint64_t extent = element_bytes;
  for (int i = 0; i < dims; ++i) {
    if (sizes[i] == 0) return bytes(base, 0);
    if (sizes[i] == 1 || strides[i] == 0) continue;
    const Dim dim{static_cast<uint64_t>(sizes[i]), static_cast<uint64_t>(strides[i]) * element_bytes};
    extent += (dim.count - 1) * dim.stride_bytes;
    if (count < kMost) all[count++] = dim;
  }
  set.end = set.begin + extent;
  std::sort(all, all + count, [](const Dim& a, const Dim& b) { return a.stride_bytes > b.stride_bytes; });
  while (count > 0 && all[count - 1].stride_bytes <= set.run_bytes) {  // runs that touch or overlap are one
    --count;
    set.run_bytes += (all[count].count - 1) * all[count].stride_bytes;
  }
  Dim joined[kMost];
  int kept = 0;
  for (int i = 0; i < count; ++i) {
    if (kept > 0 && joined[kept - 1].stride_bytes == all[i].count * all[i].stride_bytes) {
      joined[kept - 1] = {joined[kept - 1].count * all[i].count, all[i].stride_bytes};
    } else {
      joined[kept++] = all[i];
    }
  }
  if (kept > kDims) {
    set.exact = false;
    set.run_bytes = extent;
    return set;
  }
  set.dims = kept;
  std::copy(joined, joined + kept, set.dim);
  return set;
}

Overlap overlap(const Footprint& a, const Footprint& b) {
  if (a.empty() || b.empty() || a.end <= b.begin || b.end <= a.begin) return Overlap::no;
  if (!a.exact || !b.exact) return Overlap::unknown;
  if (a.dense() && b.dense()) return Overlap::yes;
  int budget = 1 << 14;
  const auto base = static_cast<int64_t>(std::min(a.begin, b.begin));
  return search({&a, 0, static_cast<int64_t>(a.begin) - base}, {&b, 0, static_cast<int64_t>(b.begin) - base}, budget);
}

bool covers(const Footprint& outer, const Footprint& inner) {
  if (!outer.exact || inner.begin < outer.begin || inner.end > outer.end) return false;
  if (outer.dense()) return true;
  if (!inner.exact || outer.begin != inner.begin || outer.dims != inner.dims || outer.run_bytes < inner.run_bytes) return false;
  for (int i = 0; i < outer.dims; ++i) {
    if (outer.dim[i].count < inner.dim[i].count || outer.dim[i].stride_bytes != inner.dim[i].stride_bytes) return false;
  }
  return true;
}

}  // namespace openreg::layers::sanitizer
