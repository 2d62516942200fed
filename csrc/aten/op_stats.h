// Operator counters: for every operator, how many calls took which way. Read by torch.openreg.op_stats().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "runtime/export.h"

namespace openreg::op_stats {

struct Counter {
  std::atomic<uint64_t> native{0};  // a kernel of this project's own
  std::atomic<uint64_t> engine{0};  // ATen's CPU kernel on the kernel view
  std::atomic<uint64_t> staged{0};  // ATen's CPU kernel between copies
  std::atomic<uint64_t> copied{0};  // calls with a result that was copied into its block
  std::atomic<uint64_t> waited{0};  // calls in which the host waited for the device
};

// The operator's counter; `name` as in "aten::add.Tensor". Valid for ever. Any thread; look it up once.
OPENREG_API Counter& counter(const std::string& name);

// Calls `visit` for every operator that was counted since the last reset, sorted by name.
OPENREG_API void for_each(const std::function<void(const char*, const Counter&)>& visit);
OPENREG_API void reset();

inline void count(std::atomic<uint64_t>& field) { field.fetch_add(1, std::memory_order_relaxed); }

}  // namespace openreg::op_stats
