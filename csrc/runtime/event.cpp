// Events over the HAL.
#include "runtime/event.h"

#include <c10/util/Exception.h>

#include <utility>

#include "runtime/driver.h"
#include "runtime/error.h"
#include "runtime/stream.h"

namespace openreg {

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
      handle_, "an event");
}

double Event::elapsed_ms(const Event& end) const {
  TORCH_CHECK(recorded() && end.recorded(), "Both events must be recorded before their distance can be measured.");
  int64_t elapsed_ns = 0;
  const openreg_status status = hal().event_elapsed(handle_, end.handle_, &elapsed_ns);
  TORCH_CHECK(status != OPENREG_NOT_READY, "Both events must be completed before their distance can be measured; synchronize first.");
  check(status, "Measuring the time between two events");
  return static_cast<double>(elapsed_ns) * 1e-6;
}

}  // namespace openreg
