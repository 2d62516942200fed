// status.cpp: the message of each thread and the state of the driver.
#include "driver/null/status.h"

#include <cstdarg>
#include <cstdio>

namespace openreg::null {

std::atomic<State> driver_state{State::off};

namespace {
thread_local char message[512];
}

openreg_status fail(openreg_status status, const char* format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof message, format, values);
  va_end(values);
  return status;
}

openreg_status check_ready() {
  switch (driver_state.load()) {
    case State::ready:
      return OPENREG_OK;
    case State::forked:
      return fail(OPENREG_FORKED, "this process was forked after the device was started; start it in the child only");
    case State::off:
      break;
  }
  return fail(OPENREG_NOT_INITIALIZED, "the driver is not started: call init first");
}

const char* last_message() { return message; }

}  // namespace openreg::null
