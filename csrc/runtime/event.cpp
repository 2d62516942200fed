// Events over the HAL.
#include "runtime/event.h"

#include <c10/util/Exception.h>

#include <cstddef>
#include <cstring>
#include <utility>

#include "runtime/device.h"
#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/stream.h"

namespace openreg {

namespace {

const openreg_driver& sharing_driver() {
  const openreg_driver& driver = hal();
  TORCH_CHECK_NOT_IMPLEMENTED(has_entry(driver, &openreg_driver::event_create_shared) && has_entry(driver, &openreg_driver::event_export) &&
                                  has_entry(driver, &openreg_driver::event_import),
                              "The driver '", driver.name, "' cannot share events with other processes: it has no event_create_shared.");
  return driver;
}

}  // namespace

Event Event::shared(c10::DeviceIndex device) {
  check_device(device);
  Event event;
  check(sharing_driver().event_create_shared(driver_device(device), &event.handle_), "Creating an event for several processes");
  event.device_ = device;
  return event;
}

Event Event::from_ipc_handle(const std::string& bytes) {
  openreg_ipc_handle handle;
  TORCH_CHECK_VALUE(bytes.size() == sizeof(handle.bytes), "An event handle has ", sizeof(handle.bytes), " bytes, not ", bytes.size(), ".");
  std::memcpy(handle.bytes, bytes.data(), sizeof(handle.bytes));
  Event event;
  int32_t device = -1;
  check(sharing_driver().event_import(&handle, &device, &event.handle_), "Opening an event of another process");
  event.device_ = static_cast<c10::DeviceIndex>(torch_device(device));
  TORCH_CHECK(event.device_ >= 0, "The event belongs to a device that OPENREG_VISIBLE_DEVICES hides.");
  return event;
}

std::string Event::ipc_handle() const {
  TORCH_CHECK(handle_ != nullptr, "The event has no handle for other processes: create it with interprocess=True.");
  openreg_ipc_handle handle;
  check(sharing_driver().event_export(handle_, &handle), "Naming an event for other processes");
  return {reinterpret_cast<const char*>(handle.bytes), sizeof(handle.bytes)};
}

Event::~Event() {
  if (handle_ != nullptr && driver_started() && !driver_stopped()) hal().event_destroy(handle_);
}

Event::Event(Event&& other) noexcept { *this = std::move(other); }

Event& Event::operator=(Event&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(device_, other.device_);
  std::swap(timing_, other.timing_);
  return *this;
}

void Event::record(c10::Stream stream) {
  if (handle_ == nullptr) {
    check(hal().event_create(driver_device(stream.device_index()), timing_, &handle_), "Creating an event");
    device_ = stream.device_index();
  }
  TORCH_CHECK(device_ == stream.device_index(), "The event was recorded on openreg:", static_cast<int>(device_),
              " first and cannot be recorded on openreg:", static_cast<int>(stream.device_index()), "; make another event.");
  check(hal().event_record(handle_, stream_handle(stream)), "Recording an event");
}

void Event::block(c10::Stream stream) const {
  if (handle_ != nullptr) check(hal().stream_wait_event(stream_handle(stream), handle_), "Making a stream wait for an event");
}

bool Event::query() const {
  if (handle_ == nullptr) return true;
  const HostWait borrowed;
  const openreg_status status = hal().event_query(handle_);
  if (status == OPENREG_NOT_READY) return false;
  check(status, "Querying an event");
  return true;
}

void Event::synchronize() const {
  if (handle_ == nullptr) return;
  wait_for(
      [](void* object, uint64_t timeout_ns, openreg_error* error) {
        return hal().event_synchronize(static_cast<openreg_event>(object), timeout_ns, error);
      },
      handle_, "an event", device_);
}

double Event::elapsed_ms(const Event& end) const {
  TORCH_CHECK(recorded() && end.recorded(), "Both events must be recorded before their distance can be measured.");
  int64_t elapsed_ns = 0;
  const openreg_status status = hal().event_elapsed(handle_, end.handle_, &elapsed_ns);
  TORCH_CHECK(status != OPENREG_NOT_READY, "Both events must be completed before their distance can be measured; synchronize first.");
  check(status, "Measuring the time between two events");
  return static_cast<double>(elapsed_ns) * 1e-6;
}

namespace {
thread_local Event* given_event = nullptr;
}

void give_event(Event event) { given_event = new Event(std::move(event)); }
Event* take_given_event() noexcept { return std::exchange(given_event, nullptr); }

}  // namespace openreg
