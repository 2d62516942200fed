// options.h: what init can be told, with defaults taken from the machine.
#pragma once

#include <cstdint>
#include <string>

#include "hal/openreg_hal.h"

namespace openreg::sim {

enum class Schedule { eager, lazy, random };

constexpr int32_t kMaxDevices = 64;

struct Options {
  int32_t devices = 2;                  // 1 to kMaxDevices
  uint64_t memory_bytes = 0;            // capacity of each device
  Schedule schedule = Schedule::eager;  // at first
  bool kernel_view = true;              // off: the host cannot map device memory
  uint64_t seed = 0;                    // of the random schedule at first
  uint64_t queue_bytes = 1u << 20;      // ring of each stream, a power of two
  int32_t compute_units = 1;            // tasks that run at the same time on one device
  std::string schedule_log;             // a path, or empty
};

// Fills *options from key/value strings: devices, memory, schedule, schedule_log, queue_bytes, compute_units, kernel_view. What is
// not named gets its default. INVALID_VALUE with a sentence for an unknown key or a bad value.
openreg_status parse_options(const openreg_option* given, size_t count, Options* options);

// Whether an option of this name exists, and whether a text is a schedule (then schedule and seed are filled).
bool is_option(const char* key);
bool parse_schedule(const char* text, Options* options);

// CPUs that this process may run on.
int32_t available_cpus();

// Memory that this process may use: the least of physical memory, cgroup limits and RLIMIT_AS.
uint64_t available_memory_bytes();

}  // namespace openreg::sim
