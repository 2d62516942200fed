// Events: thin owners of HAL events. Versioned and timed by the driver.
#pragma once

#include <c10/core/Stream.h>

#include <string>

#include "hal/openreg_hal.h"
#include "runtime/export.h"

namespace openreg {

// One HAL event with the device it was made for. Movable; destruction never waits and never throws.
class OPENREG_API Event {
 public:
  Event() = default;
  explicit Event(bool timing) : timing_(timing) {}
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // An event that other processes can wait for, and the event that another process named. Throw when the driver has none.
  static Event shared(c10::DeviceIndex device);
  static Event from_ipc_handle(const std::string& handle);
  // The name of a shared event: bytes for another process.
  std::string ipc_handle() const;
  c10::DeviceIndex device() const { return device_; }

  // Records on the stream; the HAL event is created here, on the stream's device, at the first record.
  void record(c10::Stream stream);
  // Later work of the stream waits for the latest record; nothing when there was none.
  void block(c10::Stream stream) const;
  // True when the latest record completed or there was none. Never throws a late error.
  bool query() const;
  void synchronize() const;
  // Milliseconds on the device clock from this event to `end`.
  double elapsed_ms(const Event& end) const;
  bool recorded() const { return handle_ != nullptr; }
  openreg_event handle() const { return handle_; }  // the driver's; null before the first record

 private:
  openreg_event handle_ = nullptr;
  c10::DeviceIndex device_ = -1;
  bool timing_ = false;
};

// torch.Event makes its event at the first record and gives no other way in. After give_event, the calling thread's next first record
// takes this event and records nothing.
OPENREG_API void give_event(Event event);
Event* take_given_event() noexcept;  // null: nobody gave one; else the caller's

}  // namespace openreg
