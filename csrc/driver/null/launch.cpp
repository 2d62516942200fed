// launch.cpp: runs host functions on an aligned copy of their arguments. No image format is known, so no kernel is ever live.
#include "driver/null/launch.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "driver/null/device.h"
#include "driver/null/status.h"
#include "driver/null/stream.h"

namespace openreg::null {

openreg_status kernel_load(int32_t device, const char*, const void* image, uint64_t, openreg_kernel* kernel) {
  return entry([&]() -> openreg_status {
    if (!image || !kernel) return fail(OPENREG_INVALID_VALUE, "image or kernel is null");
    if (openreg_status status = check_device(device)) return status;
    return fail(OPENREG_UNSUPPORTED, "this driver runs no device code; use launch_host_func");
  });
}

openreg_status kernel_unload(openreg_kernel kernel) {
  return entry([&]() -> openreg_status { return fail(OPENREG_INVALID_VALUE, "%p is not a live kernel", static_cast<void*>(kernel)); });
}

openreg_status launch_kernel(openreg_stream stream, openreg_kernel kernel, const openreg_geometry*, const void*, uint64_t,
                             const openreg_launch_desc*) {
  return entry([&]() -> openreg_status {
    if (!find_stream(stream)) return OPENREG_INVALID_VALUE;
    return fail(OPENREG_INVALID_VALUE, "%p is not a live kernel", static_cast<void*>(kernel));
  });
}

openreg_status launch_host_func(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size,
                                const openreg_launch_desc* desc) {
  return entry([&]() -> openreg_status {
    const std::shared_ptr<Stream> on = find_stream(stream);
    if (!on) return OPENREG_INVALID_VALUE;
    if (!fn || (size && !args)) return fail(OPENREG_INVALID_VALUE, "%s is null", fn ? "args" : "fn");
    if (openreg_status status = check_descriptor(desc)) return status;
    constexpr uint64_t kGrain = 16, kMaxBytes = uint64_t{1} << 40;
    if (size > kMaxBytes) return fail(OPENREG_INVALID_VALUE, "%llu bytes of arguments are too many", static_cast<unsigned long long>(size));
    const std::unique_ptr<void, void (*)(void*)> copied(std::aligned_alloc(kGrain, (size / kGrain + 1) * kGrain), std::free);
    if (!copied) return fail(OPENREG_OUT_OF_MEMORY, "the host has no memory for the arguments");
    if (size) std::memcpy(copied.get(), args, size);
    run_task(*on, [&](openreg_error* error) { return fn(copied.get(), error); }, copied.get(), desc);
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
