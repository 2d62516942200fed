// status.h: how an entry begins and how it says no.
//
// Statuses are values; the sentence that explains one is kept per thread for last_message.
#pragma once

#include <atomic>
#include <exception>
#include <new>

#include "hal/openreg_hal.h"

namespace openreg::sim {

enum class State : int { off, ready, forked };

// Written by init, shutdown and the fork handler only.
extern std::atomic<State> driver_state;

// Keeps the sentence for last_message and returns `status`, so that an entry can say `return fail(...)`.
openreg_status fail(openreg_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// NOT_INITIALIZED or FORKED with its sentence.
openreg_status refuse_entry();

// The HAL entry.
const char* last_message();

// Runs the body of an entry when the driver is ready. Nothing that the body throws crosses the boundary.
template <class Body>
inline openreg_status entry(Body&& body) {
  if (__builtin_expect(driver_state.load(std::memory_order_acquire) != State::ready, 0)) return refuse_entry();
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(OPENREG_OUT_OF_MEMORY, "the host has no memory left for the driver's own records");
  } catch (const std::exception& error) {
    return fail(OPENREG_INTERNAL, "the simulator failed: %s", error.what());
  }
}

}  // namespace openreg::sim
