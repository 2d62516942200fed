// The driver: settings, loading, start and stop, and the table that the rest of the runtime calls.
//
// Device numbers: torch sees the visible devices 0..device_count()-1; the driver's own numbers appear only in
// calls through hal(). driver_device() translates.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "hal/openreg_hal.h"
#include "runtime/export.h"

namespace openreg {

constexpr int kMaxDevices = 64;

struct DriverSettings {
  std::string path;                            // the driver's shared library
  std::vector<std::string> layers;             // names of layers to stack, first = closest to the caller
  std::map<std::string, std::string> options;  // passed to the driver's init
  bool visible_set = false;                    // false: every device is visible
  int expected_devices = 0;                    // visible devices, as far as they are known before the start; 0: unknown
  std::vector<int> visible;                    // driver device numbers in torch's order
};

// Stores the settings for start(). Throws when the driver has been started. Any thread.
OPENREG_API void configure_driver(DriverSettings settings);

// Loads and starts the driver; later calls do nothing. Throws a sentence that names the file, the entry or the
// option at fault; the next call tries again. Any thread.
OPENREG_API void start_driver();

// Puts a layer in front of those of the settings, the sanitizer in front of all, or takes it away: at once, or at the start. Throws for a name that
// find_layer does not know. Any thread.
OPENREG_API void set_layer(const std::string& name, bool on);

// Whether start_driver() has succeeded.
OPENREG_API bool driver_started() noexcept;

// Whether this process is a fork of one that had started the driver.
OPENREG_API bool in_bad_fork() noexcept;

// Stops the driver after at most timeout_ns of draining. Returns whether all work was done. Any thread, once.
OPENREG_API bool stop_driver(uint64_t timeout_ns) noexcept;

// Whether stop_driver() was called: deleters and event finalisers that run later do nothing.
OPENREG_API bool driver_stopped() noexcept;

struct DriverIdentity {
  std::string name, path;
  uint32_t major = 0, minor = 0;
  std::vector<std::string> layers;
};
OPENREG_API DriverIdentity driver_identity();

// How many devices torch sees; before start_driver() what the settings expect, 0 when they do not know.
int visible_device_count();

// torch's number of the driver's device; -1 when this process does not see it. The way back of driver_device.
int torch_device(int32_t driver_number);

namespace detail {
OPENREG_API extern std::atomic<const openreg_driver*> driver_table;
OPENREG_API extern std::atomic<bool> ranges_wanted;
OPENREG_API extern int driver_device_of[kMaxDevices];
OPENREG_API extern intptr_t kernel_delta_of[kMaxDevices];
OPENREG_API extern bool kernel_view_of[kMaxDevices];
OPENREG_API const openreg_driver& start_now();
[[noreturn]] OPENREG_API void throw_status(openreg_status status, const char* action);
}  // namespace detail

// The table. Starts the driver if need be; throws when it cannot be started, and in a forked child. Any thread.
inline const openreg_driver& hal() {
  const openreg_driver* table = detail::driver_table.load(std::memory_order_acquire);
  return __builtin_expect(table == nullptr, 0) ? detail::start_now() : *table;
}

// Whether the driver has an (optional) entry, or one that a later minor version appended.
template <class Entry>
inline bool has_entry(const openreg_driver& table, Entry openreg_driver::*entry) {
  const auto offset = reinterpret_cast<const char*>(&(table.*entry)) - reinterpret_cast<const char*>(&table);
  return static_cast<uint32_t>(offset) < table.struct_size && table.*entry != nullptr;
}

// Throws the exception that belongs to a status other than OK: "<action> failed: <driver's sentence>".
inline void check(openreg_status status, const char* action) {
  if (__builtin_expect(status != OPENREG_OK, 0)) detail::throw_status(status, action);
}

// Whether launches should say what they touch: see operands.h. Hot.
inline bool wants_ranges() { return detail::ranges_wanted.load(std::memory_order_relaxed); }

inline int32_t driver_device(int device) { return detail::driver_device_of[device]; }

// Whether host code that runs in stream order can reach the device's memory.
inline bool has_kernel_view(int device) { return detail::kernel_view_of[device]; }

// The distance from device addresses to those of the kernel view; 0 where there is none.
inline intptr_t kernel_delta(int device) { return detail::kernel_delta_of[device]; }

// The address at which a task on the device reaches `device_ptr`: in the kernel view where there is one, else the address itself.
template <class T>
inline T* kernel_ptr(T* device_ptr, int device) {
  return reinterpret_cast<T*>(reinterpret_cast<intptr_t>(device_ptr) + (device_ptr ? detail::kernel_delta_of[device] : 0));
}

}  // namespace openreg
