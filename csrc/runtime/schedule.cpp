// The schedule is an option of the driver that may change.
#include "runtime/schedule.h"

#include <c10/util/Exception.h>

#include "runtime/driver.h"

namespace openreg {

std::optional<std::string> exchange_schedule(const std::string& schedule) {
  const openreg_driver& driver = hal();
  TORCH_CHECK_NOT_IMPLEMENTED(has_entry(driver, &openreg_driver::option_exchange), "The driver '", driver.name,
                              "' has one schedule only: it has no option_exchange.");
  char before[64] = "";
  const openreg_status status = driver.option_exchange("schedule", schedule.c_str(), before, sizeof(before));
  if (status == OPENREG_NOT_READY) return std::nullopt;
  check(status, "Changing the schedule");
  return before;
}

std::string current_schedule() {
  const openreg_driver& driver = hal();
  char held[64] = "";
  if (has_entry(driver, &openreg_driver::option_exchange)) driver.option_exchange("schedule", nullptr, held, sizeof(held));
  return held;
}

}  // namespace openreg
