// The watchdog: a thread that notices waits which take too long (OPENREG_STALL_SECONDS, default 120, 0 = never), says what the streams do, and,
// with OPENREG_STALL_ACTION=abandon, gives up the device whose task does not end, so that the waiting host gets an error.
//
// Note [Waits that can be left]
// A thread that waits may run queued tasks itself, and a task that does not end keeps it. So where stalled devices are abandoned, waits happen on
// a helper thread, and the program's thread waits for the helper: it can leave, and the helper ends when its task does. Captures know the
// threads that call the driver, so while one is underway the thread waits itself.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "runtime/error.h"
#include "runtime/export.h"

namespace openreg {

// Marks, for its lifetime, that the calling thread waits for something of a device. Hot.
class WatchedWait {
 public:
  WatchedWait(const char* what, c10::DeviceIndex device) noexcept;
  ~WatchedWait();
  WatchedWait(const WatchedWait&) = delete;
  WatchedWait& operator=(const WatchedWait&) = delete;

 private:
  const char* what_;
  c10::DeviceIndex device_;
  uint64_t since_ns_;
};

// Marks, for its lifetime, that the calling thread puts the work `name`, which lives as long as the process, on a queue. Hot: no clock is read here, the
// watchdog measures from its first look that finds this launch.
class WatchedLaunch {
 public:
  explicit WatchedLaunch(const char* name) noexcept;
  ~WatchedLaunch();
  WatchedLaunch(const WatchedLaunch&) = delete;
  WatchedLaunch& operator=(const WatchedLaunch&) = delete;
};

// One slice of a wait: poll(object, timeout_ns, error). On a helper thread where that is needed. NOT_READY when the slice ended first;
// DEVICE_LOST, with *error, when the device was abandoned.
openreg_status poll_slice(WaitFunction poll, void* object, c10::DeviceIndex device, uint64_t timeout_ns, openreg_error* error);

// The calling thread leaves a wait early, if it has one: its helper ends by itself. Otherwise the thread's next wait would take this one's end for
// its own.
void leave_wait() noexcept;

// No look at the driver after this returns: it is about to stop. Any thread.
void stop_watchdog() noexcept;

}  // namespace openreg
