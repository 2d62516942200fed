// device.h: the chip, its devices and what they share.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "driver/sim/compute_slots.h"
#include "driver/sim/failure.h"
#include "driver/sim/host_memory.h"
#include "driver/sim/memory.h"
#include "driver/sim/options.h"
#include "driver/sim/random_schedule.h"
#include "driver/sim/schedule_log.h"
#include "driver/sim/usage.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Stream;

// Lower is more urgent.
constexpr int32_t kPriorityLeast = 0, kPriorityGreatest = -3;

struct Device {
  Device(int32_t device, const AddressSpace& space, const Options& options)
      : index(device),
        memory(device, space.device_view() + static_cast<uint64_t>(device) * space.bytes_per_device(), space.bytes_per_device(),
               space.delta(), options.memory_bytes),
        usage(usage_page()[device]),
        slots(options.compute_units, usage.free_slots) {
    usage.streams.store(0, std::memory_order_relaxed);
    usage.slots.store(options.compute_units, std::memory_order_relaxed);
  }
  ~Device() { usage.slots.store(0, std::memory_order_relaxed); }

  const int32_t index;
  DeviceMemory memory;
  DeviceUsage& usage;
  ComputeSlots slots;

  // See recovery.h.
  std::atomic<bool> lost{false};          // LOCK: Chip::registry_mutex to write
  std::atomic<uint32_t> losses{0};        // how often it was lost
  std::atomic<uint32_t> abandoned{0};     // tasks that were given up, and whose threads have not come back
  FailurePtr loss;                        // the latest. LOCK: Chip::failure_mutex
};

// Everything that lives from init to shutdown. Lock order: registry_mutex, then failure_mutex.
struct Chip {
  Options options;
  bool spin = true;  // false on one CPU, where spinning only delays the other side
  AddressSpace address_space;
  std::vector<std::unique_ptr<Device>> devices;
  HostMemory host_memory;
  RandomSchedule random;
  ScheduleLog log;
  std::atomic<Schedule> schedule{Schedule::eager};  // see Note [Changing the schedule] to write

  std::mutex registry_mutex;
  uint64_t seed = 0;                    // of the random schedule. LOCK: registry_mutex
  std::vector<Stream*> streams;         // LOCK: registry_mutex. By id; each holds one reference
  std::atomic<bool> closing{false};     // LOCK: registry_mutex to write. Workers no longer leave the registry by themselves
  std::atomic<bool> stopping{false};    // nothing more is executed
  std::atomic<uint32_t> live_workers{0};
  std::atomic<uint64_t> loss_steps{0};  // odd while a device is being lost

  std::mutex failure_mutex;
  uint64_t failures = 0;  // LOCK: failure_mutex
};

// Valid while the driver is ready. A chip with a task that never ends is leaked by shutdown, not destroyed.
extern Chip* current_chip;
inline Chip& chip() { return *current_chip; }

// INVALID_DEVICE with a sentence.
openreg_status check_device(const char* operation, int32_t device);

openreg_status device_count(int32_t* count);
openreg_status device_info(int32_t device, openreg_device_info* info);
openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error);
openreg_status device_clock(int32_t device, uint64_t* now);

}  // namespace openreg::sim
