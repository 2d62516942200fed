// host_memory.cpp: blocks of host memory, found by any address inside.
#include "driver/sim/host_memory.h"

#include <cstdlib>

#include "driver/sim/capture.h"
#include "driver/sim/device.h"
#include "driver/sim/status.h"

namespace openreg::sim {
namespace {
constexpr uint64_t kAlignment = 4096;
}

HostMemory::~HostMemory() {
  for (auto& [base, bytes] : blocks_) ::free(reinterpret_cast<void*>(base));
}

openreg_status HostMemory::allocate(uint64_t bytes, void** ptr) {
  // Above the address space aligned_alloc would have to be asked for a size that wraps.
  void* block = bytes <= INTPTR_MAX - kAlignment ? aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment) : nullptr;
  if (!block)
    return fail(OPENREG_OUT_OF_MEMORY, "host_alloc: the host cannot give %llu bytes", static_cast<unsigned long long>(bytes));
  std::lock_guard<std::mutex> guard(mutex_);
  blocks_.emplace(reinterpret_cast<uint64_t>(block), bytes);
  *ptr = block;
  return OPENREG_OK;
}

openreg_status HostMemory::free(void* ptr) {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (blocks_.erase(reinterpret_cast<uint64_t>(ptr)) == 0)
      return fail(OPENREG_INVALID_VALUE, "host_free: %p is not a live block of host_alloc", ptr);
  }
  ::free(ptr);
  return OPENREG_OK;
}

bool HostMemory::find(const void* address, uint64_t* base, uint64_t* bytes) const {
  const uint64_t at = reinterpret_cast<uint64_t>(address);
  std::lock_guard<std::mutex> guard(mutex_);
  auto after = blocks_.upper_bound(at);
  if (after == blocks_.begin()) return false;
  --after;
  if (at - after->first >= after->second) return false;
  *base = after->first;
  *bytes = after->second;
  return true;
}

openreg_status host_alloc(uint64_t bytes, void** ptr) {
  return entry([&]() -> openreg_status {
    if (!ptr) return fail(OPENREG_INVALID_VALUE, "host_alloc: ptr is null");
    if (bytes == 0) return fail(OPENREG_INVALID_VALUE, "host_alloc: bytes is 0");
    if (openreg_status status = refuse_unsafe("host_alloc")) return status;
    return chip().host_memory.allocate(bytes, ptr);
  });
}

openreg_status host_free(void* ptr) {
  return entry([&]() -> openreg_status {
    if (openreg_status status = refuse_unsafe("host_free")) return status;
    return chip().host_memory.free(ptr);
  });
}

openreg_status host_query(const void* ptr, void** base, uint64_t* bytes) {
  return entry([&]() -> openreg_status {
    uint64_t start, length;
    if (!chip().host_memory.find(ptr, &start, &length))
      return fail(OPENREG_INVALID_VALUE, "host_query: %p is in no block of host_alloc", ptr);
    if (base) *base = reinterpret_cast<void*>(start);
    if (bytes) *bytes = length;
    return OPENREG_OK;
  });
}

}  // namespace openreg::sim
