// Operators that touch a part of their first argument which data choose: rows by an index, elements by a gather. The launch says so, and
// the task, which knows the index's values, tells which part it was (runtime/sanitizer.h listens).
#pragma once

#include <ATen/core/stack.h>

#include <cstdint>
#include <string_view>

namespace openreg::engine {

enum class Choice : uint8_t {
  none,
  slices,    // (self, dim, index, ...): self.select(dim, i) for every i of the index
  rows,      // (self, index, ...): self[i]
  indices,   // (self, indices, ...): self[indices]
  elements,  // (self, dim, index, ...): the elements that gather and scatter name
  mask,      // (self, mask, ...): the elements where the mask is true
  numbers,   // (self, index, ...): elements by their place in the flat tensor
};

// What of its first argument the operator touches; `name` as in OpRecord.
Choice choice_of(std::string_view name);

// Whether the choice is made by a value that the task can tell.
inline bool tells(Choice choice) { return choice != Choice::none; }

// Tells what the call touched. `stack`: the arguments as CPU tensors, whose memory lies `delta` bytes from the device's addresses. Never throws; a
// choice that is too long to tell stays untold.
void tell_chosen(Choice choice, const torch::jit::Stack& stack, intptr_t delta, uint64_t token) noexcept;

}  // namespace openreg::engine
