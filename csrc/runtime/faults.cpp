// Beginning and ending fault plans.
#include "runtime/faults.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <mutex>
#include <set>
#include <utility>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/interpreter_lock.h"

namespace openreg {

namespace faults = layers::faults;

namespace detail {
std::atomic<bool> faults_hold{false};
}

namespace {

struct Plans {
  std::mutex mutex;  // LOCK: everything below
  std::set<uint64_t> holding;
};

Plans& plans() {
  static Plans* leaked = new Plans;
  return *leaked;
}

faults::Plan read(const std::string& source, const std::string& text) {
  std::vector<int32_t> devices;
  for (c10::DeviceIndex device = 0; device < device_count_or_throw(); ++device) devices.push_back(driver_device(device));
  faults::ParseError error{};
  auto plan = faults::parse(text, devices, &error);
  TORCH_CHECK_VALUE(plan.has_value(), source, " is no fault plan: at position ", error.position + 1, " ('", text.substr(error.position, 20), "'): ",
                    error.problem, " (docs/faults.md).");
  for (const faults::Rule& rule : plan->rules) {
    TORCH_CHECK_NOT_IMPLEMENTED(rule.action != faults::Action::lost || has_entry(hal(), &openreg_driver::device_lose), source, ": '", rule.text,
                                "' cannot happen, because the driver '", hal().name, "' cannot lose a device.");
    TORCH_CHECK_NOT_IMPLEMENTED(rule.action != faults::Action::corrupt || has_kernel_view(0), source, ": '", rule.text,
                                "' cannot happen, because the host cannot map device memory.");
  }
  return *std::move(plan);
}

void restack(const std::set<uint64_t>& holding) {
  set_layer("faults", false);  // what the layer wants may have changed
  if (!holding.empty()) set_layer("faults", true);
  detail::faults_hold = !holding.empty();
}

}  // namespace

uint64_t begin_faults(const std::string& source, const std::string& text) {
  faults::Plan plan = read(source, text);
  Plans& p = plans();
  std::lock_guard<std::mutex> lock(p.mutex);
  faults::expect_runtime_allocations();
  const uint64_t name = faults::begin(std::move(plan));
  p.holding.insert(name);
  restack(p.holding);
  return name;
}

FaultReport fault_report_of(uint64_t plan) {
  FaultReport report = faults::report(plan);
  for (faults::Fired& fired : report.fired) {
    if (const int index = torch_device(fired.device); index >= 0) fired.device = index;
  }
  return report;
}

void end_faults(uint64_t plan) {
  Plans& p = plans();
  std::lock_guard<std::mutex> lock(p.mutex);
  faults::end(plan);
  if (p.holding.erase(plan) != 0) restack(p.holding);
}

void detail::fault_allocation(c10::DeviceIndex device, size_t bytes) {
  const auto rule = [&] {
    const WithoutInterpreterLock released;  // a delay, or the cleanup of a lost device
    return faults::allocation(driver_device(device));
  }();
  if (!rule) return;
  C10_THROW_ERROR(OutOfMemoryError, "openreg out of memory. Tried to allocate " + c10::CachingAllocator::format_size(bytes) + " on openreg:" +
                                        std::to_string(static_cast<int>(device)) + ". The fault plan says so (" + *rule + ").");
}

}  // namespace openreg
