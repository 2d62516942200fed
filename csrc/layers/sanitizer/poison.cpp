// The pattern of fresh memory, in stream order: by host code where it reaches the device's memory, by copies elsewhere.
#include <algorithm>
#include <cstring>
#include <vector>

#include "layers/sanitizer/sanitizer.h"
#include "layers/sanitizer/state.h"

namespace openreg::layers::sanitizer {

namespace {

constexpr uint64_t kChunkBytes = 1 << 20;  // of a copy

struct Fill {
  uint8_t* begin;  // kernel view
  uint64_t bytes;
};

openreg_status run_fill(void* args, openreg_error*) {
  const auto& fill = *static_cast<const Fill*>(args);
  for (uint64_t i = 0; i < 2 && i < fill.bytes; ++i) fill.begin[i] = kPoisonBytes[i];
  for (uint64_t done = 2; done < fill.bytes; done *= 2) std::memcpy(fill.begin + done, fill.begin, std::min(done, fill.bytes - done));
  return OPENREG_OK;
}

// A piece of the pattern that is never freed, because copies may still read it.
const std::vector<uint8_t>& pattern() {
  static const auto* leaked = [] {
    auto* bytes = new std::vector<uint8_t>(kChunkBytes);
    for (uint64_t i = 0; i < kChunkBytes; ++i) (*bytes)[i] = kPoisonBytes[i % 2];
    return bytes;
  }();
  return *leaked;
}

}  // namespace

openreg_status poison(const openreg_driver& driver, openreg_stream stream, void* address, uint64_t bytes) {
  const openreg_driver& below = driver.launch_host_func == stacked_table().launch_host_func ? state().below() : driver;
  openreg_launch_desc desc = {};
  desc.struct_size = sizeof(desc);
  desc.name = "layer::poison";
  openreg_stream_info info = {};
  info.struct_size = sizeof(info);
  openreg_status status = below.stream_info(stream, &info);
  if (status != OPENREG_OK) return status;
  intptr_t delta = 0;
  if (below.mem_kernel_view != nullptr && below.mem_kernel_view(info.device, &delta) == OPENREG_OK) {
    const Fill fill = {static_cast<uint8_t*>(address) + delta, bytes};
    return below.launch_host_func(stream, run_fill, &fill, sizeof(fill), &desc);
  }
  for (uint64_t done = 0; done < bytes && status == OPENREG_OK; done += kChunkBytes) {
    status = below.copy(stream, static_cast<uint8_t*>(address) + done, info.device, pattern().data(), -1, std::min(kChunkBytes, bytes - done), &desc);
  }
  return status;
}

}  // namespace openreg::layers::sanitizer
