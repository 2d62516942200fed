// status.cpp: the message of each thread and the state of the driver.
#include "driver/sim/status.h"

#include <cstdarg>
#include <cstdio>

namespace openreg::sim {

std::atomic<State> driver_state{State::off};

namespace {
thread_local char message[640];
}

openreg_status fail(openreg_status status, const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof message, format, values);
  va_end(values);
  return status;
}

openreg_status refuse_entry() {
  if (driver_state.load(std::memory_order_acquire) == State::forked)
    return fail(OPENREG_FORKED,
                "this process was forked after the device was started, and a device does not survive a fork; "
                "start it in the child only, or use the spawn start method");
  return fail(OPENREG_NOT_INITIALIZED, "the driver is not started: call init first");
}

const char* last_message() { return message; }

}  // namespace openreg::sim
