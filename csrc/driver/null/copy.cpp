// copy.cpp: checks both sides, then memmove or memset.
#include "driver/null/copy.h"

#include <cstring>

#include "driver/null/device.h"
#include "driver/null/memory.h"
#include "driver/null/status.h"
#include "driver/null/stream.h"

namespace openreg::null {
namespace {

constexpr int32_t kHost = -1;

openreg_status check_side(int32_t device, const void* address, uint64_t bytes) {
  if (bytes == 0) return OPENREG_OK;
  if (device != kHost) return check_device_range(address, bytes);
  if (!address) return fail(OPENREG_INVALID_VALUE, "a host address is null");
  return check_device_range(address, 1) == OPENREG_OK
             ? fail(OPENREG_INVALID_VALUE, "%p is called host memory but is device memory", address)
             : OPENREG_OK;
}

}  // namespace

openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> on = find_stream(stream);
    if (!on) return OPENREG_INVALID_VALUE;
    for (int32_t device : {dst_device, src_device})
      if (device != kHost)
        if (openreg_status status = check_device(device)) return status;
    if (dst_device == kHost && src_device == kHost) return fail(OPENREG_INVALID_VALUE, "neither side is a device");
    if (openreg_status status = check_descriptor(desc)) return status;
    if (openreg_status status = check_side(dst_device, dst, bytes)) return status;
    if (openreg_status status = check_side(src_device, src, bytes)) return status;
    const auto task = [&](openreg_error*) -> openreg_status {
      if (bytes) std::memmove(dst, src, bytes);
      return OPENREG_OK;
    };
    run_task(*on, task, nullptr, desc);
    return OPENREG_OK;
  });
}

openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> on = find_stream(stream);
    if (!on) return OPENREG_INVALID_VALUE;
    if (openreg_status status = check_descriptor(desc)) return status;
    if (openreg_status status = check_side(0, dst, bytes)) return status;
    const auto task = [&](openreg_error*) -> openreg_status {
      if (bytes) std::memset(dst, value, bytes);
      return OPENREG_OK;
    };
    run_task(*on, task, nullptr, desc);
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
