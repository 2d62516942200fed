// Devices: how many, which is current on this thread, what they are. A null device index means the current one nowhere
// in this layer: callers resolve it.
#pragma once

#include <c10/core/Device.h>

#include "hal/openreg_hal.h"
#include "runtime/export.h"

namespace openreg {

// Visible devices. Starts the driver; 0 when that fails. Never throws. Any thread.
OPENREG_API c10::DeviceIndex device_count() noexcept;

// As device_count(), but throws the reason when the driver cannot be started.
OPENREG_API c10::DeviceIndex device_count_or_throw();

// The calling thread's current device; 0 at first.
OPENREG_API c10::DeviceIndex current_device() noexcept;

// Makes a device current on the calling thread. Throws for an index that does not exist and leaves the state.
OPENREG_API void set_device(c10::DeviceIndex device);

// As set_device, without the check: for guards' destructors, whose index was valid before.
OPENREG_API void set_device_unchecked(c10::DeviceIndex device) noexcept;

// set_device that returns the device before; a negative index changes nothing.
OPENREG_API c10::DeviceIndex exchange_device(c10::DeviceIndex device);

// Throws "openreg:7 does not exist: ..." for an index that does not exist. Starts the driver.
OPENREG_API void check_device(c10::DeviceIndex device);

OPENREG_API openreg_device_info device_info(c10::DeviceIndex device);

// The device whose memory an address lies in; throws when it is no live device memory.
OPENREG_API c10::Device device_of_pointer(const void* pointer);

// Waits for everything on the device; reports a late error. Lets Ctrl-C through.
OPENREG_API void synchronize_device(c10::DeviceIndex device);

}  // namespace openreg
