// Fault plans of the program: text in, the layer (layers/faults) on the table while a plan holds, and the allocator's share. Without a plan the
// allocator pays a load and a branch, and nothing else anything.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "layers/faults/faults.h"
#include "runtime/export.h"

namespace openreg {

using FaultReport = layers::faults::Report;

// Begins a plan and returns its name. `source` is what the plan is called in errors. Throws ValueError with the position of what is wrong in it, and
// NotImplementedError for a plan that the driver cannot follow. Starts the driver. Any thread.
OPENREG_API uint64_t begin_faults(const std::string& source, const std::string& text);

// What has fired so far; devices by torch's numbers. Nothing for a plan that has ended.
OPENREG_API FaultReport fault_report_of(uint64_t plan);

// Ends the plan; tasks that hang because of it go on. Any thread.
OPENREG_API void end_faults(uint64_t plan);

namespace detail {
OPENREG_API extern std::atomic<bool> faults_hold;
void fault_allocation(c10::DeviceIndex device, size_t bytes);
}  // namespace detail

// Whether a plan holds. Hot.
inline bool faults_hold() noexcept { return __builtin_expect(detail::faults_hold.load(std::memory_order_relaxed), 0); }

// Before an allocation: throws OutOfMemoryError when a plan denies it. Hot.
inline void check_fault_of_allocation(c10::DeviceIndex device, size_t bytes) {
  if (faults_hold()) detail::fault_allocation(device, bytes);
}

}  // namespace openreg
