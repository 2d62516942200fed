// The fault layer: makes calls of the HAL go wrong as a plan says (plan.h), on any driver. A plan that is not there costs nothing: the layer is
// stacked while there is one.
//
// A launch, copy or fill that is to fail is replaced by a task that fails with the operation's name, so that the error is late as a real one is.
// Corruption is a task behind the operation that flips one bit of what it wrote. Delays and hangs are tasks before it, under its name. Work
// that is being captured, and what another layer adds (the sanitizer's guard zones), is left alone and not counted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hal/openreg_hal.h"
#include "layers/faults/plan.h"

namespace openreg::layers::faults {

const openreg_driver* stack(const openreg_driver* below);

struct Fired {
  std::string rule, call;
  int32_t device;   // the driver's number
  uint64_t number;  // of the calls that the rule has matched
};

struct Report {
  std::vector<Fired> fired;          // in order, the first kMostFired of them
  std::vector<std::string> waiting;  // rules that have not fired
  uint64_t count = 0;                // of all that fired
};
constexpr size_t kMostFired = 10000;

// Begins a plan that parse accepts; plans nest, and where several have a fault for one call the latest decides. Returns its name. Any thread.
uint64_t begin(Plan plan);
Report report(uint64_t plan);
// Ends it; tasks that hang because of it go on.
void end(uint64_t plan);

// Whether a plan exists that needs to know what launches write.
bool wants_ranges();

// Allocations are the runtime's from now on, and not the driver's.
void expect_runtime_allocations();

// An allocation of the runtime. Waits out a delay. The rule that denies it the memory, if one does.
std::optional<std::string> allocation(int32_t device);

}  // namespace openreg::layers::faults
