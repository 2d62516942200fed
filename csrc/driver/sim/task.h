// task.h: what lies in a stream's queue, one flat record per task.
#pragma once

#include <cstdint>

#include "driver/sim/sim_kernel.h"
#include "hal/openreg_hal.h"

namespace openreg::sim {

struct Record;

enum class TaskKind : uint16_t { pad, host_func, kernel, copy, fill, record, wait, wait_shared };

// What a trace knows of a task that was enqueued while somebody traced.
struct TraceMark {
  uint64_t correlation;
  uint64_t queued_ns;
};

// The head of a record; its payload follows, or lies on the heap when it is too long for the ring.
// pad: skips to the start of the ring. record, wait: own one reference of `record`, no payload.
// wait_shared: payload SharedRecord, which cleanup releases.
// copy, fill: payload CopyArgs, FillArgs. kernel: payload KernelPrefix, then the caller's bytes.
// A marked record ends with a TraceMark.
struct alignas(16) Task {
  uint32_t size_bytes;  // of the whole record in the ring
  TaskKind kind;
  bool marked;
  bool internal;  // the driver's own: no trace
  const char* name;
  uint64_t tag;
  void (*cleanup)(void* args);
  void* heap_payload;  // null: the payload follows this head
  union {
    openreg_host_func host_func;
    openreg_sim_kernel kernel;
    Record* record;
  };

  char* payload() { return heap_payload ? static_cast<char*>(heap_payload) : reinterpret_cast<char*>(this + 1); }
  TraceMark& mark() { return reinterpret_cast<TraceMark*>(reinterpret_cast<char*>(this) + size_bytes)[-1]; }
};
static_assert(sizeof(Task) == 48);

// Kernel-view or host addresses.
struct CopyArgs {
  void* dst;
  const void* src;
  uint64_t bytes;
};

struct FillArgs {
  void* dst;
  uint64_t bytes;
  uint8_t value;
};

struct alignas(16) KernelPrefix {
  openreg_geometry geometry;
};
static_assert(sizeof(KernelPrefix) == 32);

}  // namespace openreg::sim
