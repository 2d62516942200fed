// status.h: how an entry begins and how it says no.
#pragma once

#include <atomic>
#include <exception>
#include <new>

#include "hal/openreg_hal.h"

namespace openreg::null {

enum class State { off, ready, forked };

extern std::atomic<State> driver_state;

// Keeps the sentence for last_message and returns `status`.
openreg_status fail(openreg_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// NOT_INITIALIZED or FORKED with its sentence; OK when the driver is ready.
openreg_status check_ready();

// The HAL entry.
const char* last_message();

// Runs the body of an entry when the driver is ready. Nothing that the body throws crosses the boundary.
template <class Body>
openreg_status entry(Body&& body) {
  if (openreg_status status = check_ready()) return status;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(OPENREG_OUT_OF_MEMORY, "the host has no memory left for the driver's own records");
  } catch (const std::exception& error) {
    return fail(OPENREG_INTERNAL, "the driver failed: %s", error.what());
  }
}

}  // namespace openreg::null
