// Events: thin owners of HAL events. Versioned and timed by the driver.
#pragma once

#include <c10/core/Stream.h>

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

 private:
  openreg_event handle_ = nullptr;
  c10::DeviceIndex device_ = -1;
  bool timing_ = false;
};

}  // namespace openreg
