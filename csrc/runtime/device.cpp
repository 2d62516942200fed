// The current device of each thread and the questions asked about devices.
#include "runtime/device.h"

#include <c10/util/Exception.h>

#include "runtime/driver.h"
#include "runtime/error.h"

namespace openreg {

namespace {
thread_local c10::DeviceIndex current = 0;
}

c10::DeviceIndex device_count_or_throw() {
  start_driver();
  return static_cast<c10::DeviceIndex>(visible_device_count());
}

c10::DeviceIndex device_count() noexcept {
  // Counting does not start the driver where the settings tell the number: autograd counts the devices of every backward, also of
  // one on the CPU, and a started driver does not survive a fork.
  if (const int count = visible_device_count(); count > 0 || driver_started() || in_bad_fork()) return static_cast<c10::DeviceIndex>(count);
  try {
    return device_count_or_throw();
  } catch (const std::exception& e) {
    TORCH_WARN_ONCE("No openreg device is available: ", e.what());
    return 0;
  }
}

c10::DeviceIndex current_device() noexcept { return current; }

namespace {

void check_index(c10::DeviceIndex device, c10::DeviceIndex count) {
  TORCH_CHECK(device >= 0 && device < count, "openreg:", static_cast<int>(device), " does not exist: ", static_cast<int>(count),
              count == 1 ? " device is visible" : " devices are visible",
              ". Use an index from 0, or set OPENREG_DEVICES (how many the simulator has) or OPENREG_VISIBLE_DEVICES.");
}

}  // namespace

void check_device(c10::DeviceIndex device) { check_index(device, device_count_or_throw()); }

void set_device(c10::DeviceIndex device) {
  check_index(device, device_count());
  current = device;
}

void set_device_unchecked(c10::DeviceIndex device) noexcept {
  if (device >= 0) current = device;
}

c10::DeviceIndex exchange_device(c10::DeviceIndex device) {
  const c10::DeviceIndex before = current;
  if (device >= 0 && device != before) set_device(device);
  return before;
}

openreg_device_info device_info(c10::DeviceIndex device) {
  check_device(device);
  openreg_device_info info = {};
  info.struct_size = sizeof(info);
  check(hal().device_info(driver_device(device), &info), "Reading the device's properties");
  return info;
}

c10::Device device_of_pointer(const void* pointer) {
  int32_t device = -1;
  check(hal().mem_query(pointer, &device, nullptr, nullptr), "Looking up a device pointer");
  const int index = torch_device(device);
  TORCH_CHECK(index >= 0, "The pointer lies in memory of a device that OPENREG_VISIBLE_DEVICES hides.");
  return {c10::DeviceType::PrivateUse1, static_cast<c10::DeviceIndex>(index)};
}

void synchronize_device(c10::DeviceIndex device) {
  check_device(device);
  wait_for(
      [](void* object, uint64_t timeout_ns, openreg_error* error) {
        return hal().device_synchronize(static_cast<int32_t>(reinterpret_cast<intptr_t>(object)), timeout_ns, error);
      },
      reinterpret_cast<void*>(static_cast<intptr_t>(driver_device(device))), "a device", device);
}

}  // namespace openreg
