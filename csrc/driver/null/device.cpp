// device.cpp: describes the one device. Nothing is ever pending on it, so synchronising only reports.
#include "driver/null/device.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "driver/null/status.h"
#include "driver/null/stream.h"

namespace openreg::null {

openreg_status check_device(int32_t device) {
  return device == 0 ? OPENREG_OK : fail(OPENREG_INVALID_DEVICE, "there is no device %d; this driver has only device 0", device);
}

uint64_t clock_ns() {
  return static_cast<uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

openreg_status device_count(int32_t* count) {
  return entry([&] {
    if (!count) return fail(OPENREG_INVALID_VALUE, "count is null");
    *count = 1;
    return openreg_status{OPENREG_OK};
  });
}

openreg_status device_info(int32_t device, openreg_device_info* info) {
  return entry([&]() -> openreg_status {
    if (!info || info->struct_size < sizeof info->struct_size) return fail(OPENREG_INVALID_VALUE, "info is null or its struct_size is not set");
    if (openreg_status status = check_device(device)) return status;
    openreg_device_info full{};
    full.struct_size = info->struct_size;
    std::strcpy(full.name, "OpenReg null device");
    full.total_memory_bytes = kMemoryBytes;
    full.allocation_granularity_bytes = kAlignment;
    full.compute_units = 1;
    full.capability_major = 1;
    std::memcpy(info, &full, std::min<size_t>(info->struct_size, sizeof full));
    return OPENREG_OK;
  });
}

openreg_status device_synchronize(int32_t device, uint64_t, openreg_error* error) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = check_device(device)) return status;
    std::shared_ptr<Failure> first;
    for (const std::shared_ptr<Stream>& stream : streams().all()) {
      std::shared_ptr<Failure> failure = pending_failure(*stream);
      if (failure && (!first || failure->order < first->order)) first = failure;
    }
    return report(first, error);
  });
}

openreg_status device_clock(int32_t device, uint64_t* now_ns) {
  return entry([&]() -> openreg_status {
    if (!now_ns) return fail(OPENREG_INVALID_VALUE, "now_ns is null");
    if (openreg_status status = check_device(device)) return status;
    *now_ns = clock_ns();
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
