// host_memory.h: host memory that every device can reach. The chip has no paging, so all it keeps is a list of blocks.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "hal/openreg_hal.h"

namespace openreg::sim {

class HostMemory {
 public:
  ~HostMemory();
  openreg_status allocate(uint64_t bytes, void** ptr);
  openreg_status free(void* ptr);
  bool find(const void* address, uint64_t* base, uint64_t* bytes) const;

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, uint64_t> blocks_;  // LOCK: mutex_. Address -> bytes asked for
};

openreg_status host_alloc(uint64_t bytes, void** ptr);
openreg_status host_free(void* ptr);
openreg_status host_query(const void* ptr, void** base, uint64_t* bytes);

}  // namespace openreg::sim
