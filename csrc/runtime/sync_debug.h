// Sync debug mode: warns of, or refuses, calls in which the program makes the host wait for the device. The meaning is cuda's.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/export.h"

namespace openreg {

enum class SyncDebugMode : int { off = 0, warn = 1, error = 2 };

// For the whole process; `off` at first. Any thread.
OPENREG_API void set_sync_debug_mode(SyncDebugMode mode) noexcept;
OPENREG_API SyncDebugMode sync_debug_mode() noexcept;

// Said before a call that will wait because its result asks for it: reads of numbers, blocking copies between host and device, shapes that depend
// on data, and waits for a stream. Not for waits of the runtime itself, nor for a device's or an event's synchronization, which ask for nothing else.
// Warns, or throws c10::Error, when the mode says so. Nothing has been queued then. Any thread.
OPENREG_API void before_host_wait_slow(const char* name);
OPENREG_API extern std::atomic<int> current_sync_debug_mode;
inline void before_host_wait(const char* name) {
  if (__builtin_expect(current_sync_debug_mode.load(std::memory_order_relaxed) != 0, 0)) before_host_wait_slow(name);
}

}  // namespace openreg
