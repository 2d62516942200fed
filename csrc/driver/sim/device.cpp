// device.cpp: describes devices and waits for all their streams.
#include "driver/sim/device.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "driver/sim/capture.h"
#include "driver/sim/recovery.h"
#include "driver/sim/schedule.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"
#include "driver/sim/worker.h"

namespace openreg::sim {

Chip* current_chip = nullptr;

openreg_status check_device(const char* operation, int32_t device) {
  const int32_t count = static_cast<int32_t>(chip().devices.size());
  if (device >= 0 && device < count) return OPENREG_OK;
  return fail(OPENREG_INVALID_DEVICE, "%s: there is no device %d; this chip has %d, numbered from 0", operation, device, count);
}

openreg_status device_count(int32_t* count) {
  return entry([&]() -> openreg_status {
    if (!count) return fail(OPENREG_INVALID_VALUE, "device_count: count is null");
    *count = static_cast<int32_t>(chip().devices.size());
    return OPENREG_OK;
  });
}

openreg_status device_info(int32_t device, openreg_device_info* info) {
  return entry([&]() -> openreg_status {
    if (!info || info->struct_size < 8)
      return fail(OPENREG_INVALID_VALUE, "device_info: info is null or its struct_size is not set");
    if (openreg_status status = check_device("device_info", device)) return status;
    openreg_device_info full{};
    full.struct_size = info->struct_size;
    snprintf(full.name, sizeof full.name, "OpenReg simulated device %d", device);
    full.total_memory_bytes = chip().devices[static_cast<size_t>(device)]->memory.capacity_bytes();
    full.allocation_granularity_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    full.compute_units = chip().options.compute_units;
    full.capability_major = 1;
    full.capability_minor = 0;
    full.priority_least = kPriorityLeast;
    full.priority_greatest = kPriorityGreatest;
    std::memcpy(info, &full, std::min<size_t>(info->struct_size, sizeof full));
    return OPENREG_OK;
  });
}

openreg_status device_synchronize(int32_t device, uint64_t timeout_ns, openreg_error* error) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device("device_synchronize", device)) return status;
    if (openreg_status status = check_error_record("device_synchronize", error)) return status;
    if (openreg_status status = refuse_on_capturing_device("device_synchronize", device)) return status;
    if (openreg_status status = refuse_unsafe("device_synchronize")) return status;
    const LossWatch watch(*chip().devices[static_cast<size_t>(device)]);
    std::vector<std::pair<StreamRef, uint64_t>> targets;
    {
      std::lock_guard<std::mutex> guard(chip().registry_mutex);
      for (Stream* stream : chip().streams)
        if (stream->device->index == device) {
          if (timeout_ns & kLends) note_wait(*stream);
          targets.emplace_back(StreamRef(stream), stream->queue.tail());
        }
    }
    // Where the caller executes the tasks itself, it begins with the most urgent stream.
    if (targets.size() > 1)
      std::stable_sort(targets.begin(), targets.end(), [](const auto& a, const auto& b) { return a.first->priority < b.first->priority; });
    const uint64_t deadline = deadline_after(timeout_ns);
    bool pending = false;
    for (auto& [stream, target] : targets) {
      const openreg_status status =
          timeout_ns == 0 ? poll_position(*stream, target) : await_position("device_synchronize", *stream, target, deadline);
      if (status == OPENREG_NOT_READY)
        pending = true;
      else if (status != OPENREG_OK)
        return status;
    }
    if (pending) return OPENREG_NOT_READY;
    if (openreg_status status = watch.report("device_synchronize", error)) return status;
    FailurePtr first;
    for (auto& [stream, target] : targets) {
      FailurePtr failure = pending_failure(*stream);
      if (failure && (!first || failure->order < first->order)) first = failure;
    }
    return report_failure(chip(), first, error);
  });
}

openreg_status device_clock(int32_t device, uint64_t* now) {
  return entry([&]() -> openreg_status {
    if (!now) return fail(OPENREG_INVALID_VALUE, "device_clock: now_ns is null");
    if (openreg_status status = check_device("device_clock", device)) return status;
    *now = now_ns();
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
