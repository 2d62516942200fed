// pages.h: the system's pages under both views: reserving, and the marks of the kernel view.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace openreg::sim {

constexpr uint64_t kLargeSegment = uint64_t{2} << 20;  // from here on addresses are aligned to it, and pages may be huge

inline uint64_t page_bytes() {
  static const uint64_t bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

inline uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

inline void* reserve_range(uint64_t bytes, void* fixed = nullptr) {
  return mmap(fixed, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (fixed ? MAP_FIXED : 0), -1, 0);
}

// New mappings lose these marks, so every change of the kernel view renews them.
inline void hide_from_fork_and_dump(void* address, uint64_t bytes) {
  madvise(address, bytes, MADV_DONTFORK);
  madvise(address, bytes, MADV_DONTDUMP);
}

// What /proc calls the memory of a device; process.cpp looks for it.
inline std::string memory_file_name(int32_t device) { return "openreg:" + std::to_string(device); }

inline int make_memory_file(int32_t device) { return memfd_create(memory_file_name(device).c_str(), MFD_CLOEXEC); }

}  // namespace openreg::sim
