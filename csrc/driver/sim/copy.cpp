// copy.cpp: checks both sides against live memory, then enqueues a memmove between kernel-view and host addresses.
#include "driver/sim/copy.h"

#include "driver/sim/device.h"
#include "driver/sim/launch.h"
#include "driver/sim/recovery.h"
#include "driver/sim/status.h"
#include "driver/sim/stream.h"
#include "driver/sim/trace.h"

namespace openreg::sim {
namespace {

constexpr int32_t kHost = -1;

char* kernel_address(const void* device_address) {
  return static_cast<char*>(const_cast<void*>(device_address)) + chip().address_space.delta();
}

// Checks one side and turns its address into one that the executor can reach.
openreg_status resolve(const char* role, int32_t device, const void* address, uint64_t bytes, char** reachable) {
  if (device == kHost) {
    if (!address) return fail(OPENREG_INVALID_VALUE, "copy: %s is null", role);
    const int32_t owner = chip().address_space.device_of(address);
    if (owner >= 0)
      return fail(OPENREG_INVALID_VALUE, "copy: %s %p is called host memory but belongs to device %d", role, address, owner);
    *reachable = static_cast<char*>(const_cast<void*>(address));
    return OPENREG_OK;
  }
  *reachable = kernel_address(address);
  return check_device_range("copy", role, device, address, bytes);
}

}  // namespace

openreg_status copy(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device, uint64_t bytes,
                    const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("copy", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    for (int32_t device : {dst_device, src_device})
      if (device != kHost) {
        if (openreg_status status = check_device("copy", device)) return status;
        if (openreg_status status = refuse_lost("copy", *chip().devices[static_cast<size_t>(device)])) return status;
      }
    if (dst_device == kHost && src_device == kHost)
      return fail(OPENREG_INVALID_VALUE, "copy: neither side is a device");
    if (on->device->index != dst_device && on->device->index != src_device)
      return fail(OPENREG_INVALID_VALUE, "copy: the stream is on device %d, the copy is from %d to %d", on->device->index, src_device, dst_device);
    Task task{};
    task.kind = TaskKind::copy;
    if (openreg_status status = describe_task("copy", desc, "copy", &task)) return status;
    CopyArgs args{nullptr, nullptr, bytes};
    if (bytes) {
      char *to, *from;
      if (openreg_status status = resolve("dst", dst_device, dst, bytes, &to)) return status;
      if (openreg_status status = resolve("src", src_device, src, bytes, &from)) return status;
      args.dst = to;
      args.src = from;
    } else if (!task.cleanup) {
      if (is_traced()) trace_at_call(*on, task);
      return OPENREG_OK;
    }
    return submit(*on, task, {}, {&args, sizeof args}, nullptr);
  });
}

openreg_status fill(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    Stream* on = find_stream("fill", stream);
    if (!on) return OPENREG_INVALID_VALUE;
    Task task{};
    task.kind = TaskKind::fill;
    if (openreg_status status = describe_task("fill", desc, "fill", &task)) return status;
    FillArgs args{nullptr, bytes, value};
    if (bytes) {
      if (openreg_status status = check_device_range("fill", "dst", on->device->index, dst, bytes)) return status;
      args.dst = kernel_address(dst);
    } else if (!task.cleanup) {
      if (is_traced()) trace_at_call(*on, task);
      return OPENREG_OK;
    }
    return submit(*on, task, {}, {&args, sizeof args}, nullptr);
  });
}

}  // namespace openreg::sim
