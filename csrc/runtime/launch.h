// Launch: how operators put work on a stream. Everything here captures what the work needs and returns at once,
// unless OPENREG_LAUNCH_BLOCKING=1 or the stream's queue is full. On a stream that is being captured it becomes part of a graph.
#pragma once

#include <c10/core/Stream.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "hal/openreg_hal.h"
#include "runtime/driver.h"
#include "runtime/export.h"

namespace openreg {

// Enqueues `fn` with a copy of `size` bytes of `args`. `name` lives as long as the process (an operator's name). `cleanup`
// (may be null) runs exactly once with the copied bytes, on whichever thread finishes or drops the task. Throws when the driver refuses;
// then cleanup has not run and the caller still owns what the bytes own. A launch with a cleanup does not wait under
// OPENREG_LAUNCH_BLOCKING=1: the caller does.
OPENREG_API void launch_host_func(c10::Stream stream, const char* name, openreg_host_func fn, const void* args, size_t size,
                                  void (*cleanup)(void*) = nullptr);

// Waits for what was just launched under OPENREG_LAUNCH_BLOCKING=1, unless the stream is being captured; then throws a late error.
OPENREG_API void after_launch(c10::Stream stream);

// Device code of this library, one per kernel function: loaded on a device when it is first launched there.
// `function` is what the simulator runs (driver/sim/sim_kernel.h); a driver for real hardware replaces the image. On a driver that takes
// no device code but has a kernel view the function runs as host code in stream order.
class OPENREG_API Kernel {
 public:
  Kernel(const char* name, void (*function)(const openreg_geometry*, const void*)) : name_(name), function_(function) {}
  // Enqueues the kernel over `threads` elements (a 1-D grid in blocks of 1024). Pointers inside args are kernel_ptr()s.
  template <class Args>
  void launch(c10::Stream stream, const char* op, uint64_t threads, const Args& args) {
    launch_bytes(stream, op, threads, &args, sizeof(Args));
  }

 private:
  void launch_bytes(c10::Stream stream, const char* op, uint64_t threads, const void* args, size_t size);
  openreg_kernel handle(c10::DeviceIndex device);  // null: the driver takes no device code
  const char* name_;
  void (*function_)(const openreg_geometry*, const void*);
  std::atomic<openreg_kernel> handles_[kMaxDevices] = {};
  std::atomic<bool> host_only_[kMaxDevices] = {};
};

// Copies and fills in stream order; a host address is one that stays valid until the task ran.
OPENREG_API void launch_copy(c10::Stream stream, const char* name, void* dst, c10::Device dst_device, const void* src,
                             c10::Device src_device, size_t bytes);
OPENREG_API void launch_fill(c10::Stream stream, const char* name, void* dst, uint8_t value, size_t bytes);

// Marks the calling thread as one that runs a host function for a stream. Until it is over, launches and waits on this thread throw: the
// stream waits for it. Functions that the driver runs itself are not marked; the driver refuses their calls as the HAL says.
OPENREG_API void set_in_host_function(bool inside) noexcept;
// Throws on a marked thread.
OPENREG_API void refuse_in_host_function(const char* what);

// Whether OPENREG_LAUNCH_BLOCKING=1.
OPENREG_API bool launch_blocking() noexcept;

// The Python stack of the launch that a descriptor tag stands for ("file.py:12 in step", a line for each frame, innermost first), or "" when none was
// recorded: OPENREG_LAUNCH_TRACE=1 and the sanitizer record it.
OPENREG_API std::string launch_site(uint64_t tag);

}  // namespace openreg
