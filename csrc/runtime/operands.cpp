// The notes of each thread.
#include "runtime/operands.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace openreg {

namespace {

struct Notes {
  std::vector<openreg_range> ranges;
  std::vector<openreg_operand> operands;  // sizes and strides are filled in at the launch: the numbers move while they grow
  std::vector<int64_t> numbers;
};

thread_local Notes notes;

}  // namespace

void note_operand(const void* base, c10::ScalarType type, c10::IntArrayRef sizes, c10::IntArrayRef strides, Touch touch, uint32_t flags, uint64_t token) {
  if (base == nullptr || std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return;
  const auto item = static_cast<uint32_t>(c10::elementSize(type));
  uint64_t bytes = item;
  for (size_t i = 0; i < sizes.size(); ++i) bytes += static_cast<uint64_t>(sizes[i] - 1) * static_cast<uint64_t>(strides[i]) * item;
  notes.ranges.push_back({base, bytes, touch == Touch::writes});
  notes.operands.push_back({flags, item, static_cast<int32_t>(sizes.size()), nullptr, nullptr, c10::toString(type), token});
  notes.numbers.insert(notes.numbers.end(), sizes.begin(), sizes.end());
  notes.numbers.insert(notes.numbers.end(), strides.begin(), strides.end());
}

void forget_operands() noexcept {
  notes.ranges.clear();
  notes.operands.clear();
  notes.numbers.clear();
}

void add_operands(openreg_launch_desc* desc) {
  if (notes.ranges.empty()) {
    // The operators of this library note what they touch, so a launch without a note touches nothing; of others nobody knows.
    static const openreg_range nothing = {};
    const std::string_view name = desc->name;
    if (name.substr(0, 6) == "aten::" || name.substr(0, 9) == "openreg::") desc->ranges = &nothing;
    return;
  }
  const int64_t* next = notes.numbers.data();
  for (openreg_operand& operand : notes.operands) {
    operand.sizes = next;
    operand.strides = next + operand.dims;
    next += 2 * operand.dims;
  }
  desc->ranges = notes.ranges.data();
  desc->operands = notes.operands.data();
  desc->range_count = static_cast<uint32_t>(notes.ranges.size());
}

}  // namespace openreg
