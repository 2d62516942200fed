// usage.h: how busy the devices are, in a page that other processes of the user can read.
//
// Every process that runs the simulator has one page, a memory file that /proc shows by its name. The numbers are those that the chip works with,
// kept there instead of in the process: nothing is counted twice.
#pragma once

#include <atomic>
#include <cstdint>

#include "driver/sim/options.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

// Read by other processes, perhaps of another version: a change of the layout changes the file's name.
struct DeviceUsage {
  std::atomic<int32_t> free_slots;  // compute slots that nobody holds
  std::atomic<int32_t> slots;       // 0 = the process has no such device
  std::atomic<int32_t> streams;
  int32_t reserved;
};
static_assert(std::atomic<int32_t>::is_always_lock_free && sizeof(DeviceUsage) == 16);

// The page of this process, kMaxDevices entries, all zero at first; anonymous, and unseen by others, when the system makes no memory file.
// Null when the host has no memory. Lives as long as the process.
DeviceUsage* usage_page();

openreg_status device_usage(int32_t device, uint64_t window_ns, openreg_usage* usage);

}  // namespace openreg::sim
