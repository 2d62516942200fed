// Losing and resetting devices over the HAL's recovery entries.
#include "runtime/recovery.h"

#include <c10/util/Exception.h>

#include <array>
#include <atomic>
#include <mutex>

#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/sanitizer.h"

namespace openreg {

namespace {

std::array<std::atomic<uint64_t>, kMaxDevices> losses{};
std::atomic<void (*)(c10::DeviceIndex)> abandon_hook{nullptr};

// A device is not reset before its loss has been counted.
std::mutex& recovery_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

const openreg_driver& recovering_driver() {
  const openreg_driver& driver = hal();
  TORCH_CHECK_NOT_IMPLEMENTED(has_entry(driver, &openreg_driver::device_lose) && has_entry(driver, &openreg_driver::device_reset), "The driver '",
                              driver.name, "' cannot give up a device and bring it back: it has no device_lose and device_reset.");
  return driver;
}

// A stream that never has work: waiting for it tells nothing but whether its device is lost.
openreg_stream probe(c10::DeviceIndex device) {
  static std::mutex mutex;
  static std::array<openreg_stream, kMaxDevices> streams{};  // LOCK: mutex
  std::lock_guard<std::mutex> lock(mutex);
  openreg_stream& stream = streams[static_cast<size_t>(device)];
  if (stream == nullptr) check(hal().stream_create(driver_device(device), 0, &stream), "Creating a stream");
  return stream;
}

}  // namespace

void abandon_device(c10::DeviceIndex device, const std::string& reason) {
  check_device(device);
  std::lock_guard<std::mutex> lock(recovery_mutex());
  check(recovering_driver().device_lose(driver_device(device), reason.c_str()), "Giving up a device");
  losses[static_cast<size_t>(device)].fetch_add(1, std::memory_order_acq_rel);
  if (auto* hook = abandon_hook.load()) hook(device);
}

bool try_reset_device(c10::DeviceIndex device) {
  check_device(device);
  std::lock_guard<std::mutex> lock(recovery_mutex());
  const openreg_driver& driver = recovering_driver();
  if (!loss_reason(device)) return true;  // memory keeps its contents, also for layers, which cannot know why a reset does nothing
  const openreg_status status = driver.device_reset(driver_device(device));
  if (status == OPENREG_NOT_READY) return false;
  check(status, "Resetting a device");
  return true;
}

std::optional<std::string> loss_reason(c10::DeviceIndex device) {
  check_device(device);
  openreg_error error = {};
  error.struct_size = sizeof(error);
  const RelaxedCapture relaxed;
  const RuntimeWait wait;
  if (hal().stream_synchronize(probe(device), 0, &error) != OPENREG_DEVICE_LOST) return std::nullopt;
  return error.message;
}

uint64_t losses_of(c10::DeviceIndex device) noexcept {
  return device < 0 ? 0 : losses[static_cast<size_t>(device)].load(std::memory_order_acquire);
}

std::string loss_sentence(int device, const std::string& reason) {
  const std::string index = std::to_string(device);
  return "openreg:" + index + " is lost: " + reason + ". Work that was queued on it was dropped, and its memory has no contents any more. Every call that " +
         "needs the device raises this error until torch.openreg.reset(" + index + ").";
}

void set_abandon_hook(void (*hook)(c10::DeviceIndex)) { abandon_hook = hook; }

}  // namespace openreg
