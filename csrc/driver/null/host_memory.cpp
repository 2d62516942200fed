// host_memory.cpp: aligned blocks, found by any address inside.
#include "driver/null/host_memory.h"

#include "driver/null/blocks.h"
#include "driver/null/status.h"

namespace openreg::null {
namespace {
constexpr uint64_t kHostAlignment = 64, kNoLimit = INT64_MAX;

Blocks& blocks() {
  static Blocks& all = *new Blocks;
  return all;
}
}  // namespace

void free_all_host_memory() { blocks().free_all(); }

openreg_status host_alloc(uint64_t bytes, void** ptr) {
  return entry([&]() -> openreg_status {
    if (!ptr) return fail(OPENREG_INVALID_VALUE, "ptr is null");
    if (bytes == 0) return fail(OPENREG_INVALID_VALUE, "bytes is 0");
    void* block = blocks().allocate(bytes, kHostAlignment, kNoLimit);
    if (!block) return fail(OPENREG_OUT_OF_MEMORY, "the host cannot give %llu bytes", static_cast<unsigned long long>(bytes));
    *ptr = block;
    return OPENREG_OK;
  });
}

openreg_status host_free(void* ptr) {
  return entry([&]() -> openreg_status {
    return blocks().free(ptr) ? OPENREG_OK : fail(OPENREG_INVALID_VALUE, "%p is not a live block of host_alloc", ptr);
  });
}

openreg_status host_query(const void* ptr, void** base, uint64_t* bytes) {
  return entry([&]() -> openreg_status {
    uint64_t start, length;
    if (!blocks().find(ptr, &start, &length)) return fail(OPENREG_INVALID_VALUE, "%p is in no block of host_alloc", ptr);
    if (base) *base = reinterpret_cast<void*>(start);
    if (bytes) *bytes = length;
    return OPENREG_OK;
  });
}

}  // namespace openreg::null
