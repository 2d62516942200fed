// Errors: from the HAL's values to exceptions, and the waits during which late errors are raised.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <exception>

#include "hal/openreg_hal.h"
#include "runtime/export.h"

namespace openreg {

// What a host function that caught an exception writes into openreg_error.kind.
enum class ErrorKind : int32_t { none = 0, runtime, index, value, type, not_implemented, linalg, out_of_memory };

// Fills kind and message from the exception being handled. Call inside a catch block. Never throws.
OPENREG_API void describe_current_exception(openreg_error* error) noexcept;

// Throws c10::AcceleratorError for a failure that was reported late: names device, stream, operator and launch site; or the reason why a device
// is lost.
[[noreturn]] OPENREG_API void throw_late_error(const openreg_error& error);

// Throws c10::AcceleratorError for work that the stream skipped because of a failure that another thread has been told of.
[[noreturn]] OPENREG_API void throw_skipped(const char* name);

// Calls `poll(object, timeout_ns, &error)` until it returns something else than NOT_READY. Between the slices it lets Ctrl-C through, and the
// watchdog watches it (watchdog.h). Throws a late error, and when the device (-1 = none) was lost meanwhile. `object` is a value: the wait may be left
// while another thread still uses it.
using WaitFunction = openreg_status (*)(void* object, uint64_t timeout_ns, openreg_error* error);
OPENREG_API void wait_for(WaitFunction poll, void* object, const char* what, c10::DeviceIndex device);

// Marks, for its lifetime, that this thread is inside a HAL call in which the driver may run queued tasks on it.
class OPENREG_API HostWait {
 public:
  HostWait() noexcept;
  ~HostWait();
  HostWait(const HostWait&) = delete;
  HostWait& operator=(const HostWait&) = delete;
  // Whether the calling thread is in one: a task that runs now has borrowed a host thread and leaves its state as it was.
  static bool active() noexcept;
};

// Installs the function that wait_for calls between slices; it throws to interrupt the wait. Python's layer sets it.
OPENREG_API void set_interrupt_check(void (*check)());

}  // namespace openreg
