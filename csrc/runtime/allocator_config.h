// How the device allocator behaves: torch's allocator settings and the few keys of our own, as one immutable value.
//
// Note [Allocator settings]
// Torch parses PYTORCH_ALLOC_CONF and what torch._C._accelerator_setAllocatorSettings is given; we read its result through its parser hook
// and add our keys. OPENREG_ALLOC_CONF, where it is set, takes the place of the environment that torch would read. A heap
// reads the settings once per allocation, without a lock: each change makes a new value, and old ones are leaked, because another thread
// may be reading one. Torch has stored a string, or half of it, before it is refused; then the last accepted settings are given to it again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/export.h"

namespace openreg {

struct AllocatorConfig {
  uint64_t large_segment_bytes = 0;                          // for large requests below kOwnSegment; 0 = as much as the request
  uint64_t max_split_bytes = UINT64_MAX;                     // blocks of this size and more are not split
  uint64_t max_non_split_rounding_bytes = uint64_t{20} << 20;  // how much larger such a block may be than the request
  double garbage_collection_threshold = 0;                   // of the limit; 0 = off
  double memory_fraction = 1;                                // of a device's memory, when its heap begins
  bool expandable_segments = false;
  std::vector<size_t> roundup_divisions;                     // per power of two from 1 MiB on; empty = off

  // The block size for a request.
  uint64_t rounded(uint64_t bytes) const;
};

// One key that a settings string may have, for the documentation.
struct AllocatorSetting {
  const char* key;
  const char* standard;  // the default, as text
  const char* meaning;
};
OPENREG_API std::vector<AllocatorSetting> allocator_settings();

// Lets torch's parser tell us of every change. At import.
void register_allocator_config();

// The settings now. The first call reads the environment and throws ValueError when it does not make sense; so does the next one. Any
// thread; hot.
OPENREG_API const AllocatorConfig& allocator_config();

// Changes the settings of the running program. Throws ValueError, and nothing has changed, for a string that does not make sense. Any thread.
OPENREG_API void set_allocator_settings(const std::string& settings);

// Whether freed blocks are kept for reuse. Begins as OPENREG_NO_MEMORY_CACHING says. Any thread.
OPENREG_API bool memory_caching() noexcept;
OPENREG_API void set_memory_caching(bool enabled) noexcept;

}  // namespace openreg
