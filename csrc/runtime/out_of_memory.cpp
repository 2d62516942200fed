// Observers and the sentence.
#include "runtime/out_of_memory.h"

#include <c10/util/Exception.h>

#include <mutex>
#include <sstream>
#include <utility>
#include <vector>

namespace openreg {

namespace {

struct Observers {
  std::mutex mutex;  // LOCK: list
  std::vector<OutOfMemoryObserver> list;
};

Observers& observers() {
  static Observers* leaked = new Observers;
  return *leaked;
}

std::string sentence(const OutOfMemory& facts) {
  using c10::CachingAllocator::format_size;
  const c10::Device device(c10::DeviceType::PrivateUse1, facts.device);
  const uint64_t unallocated = facts.reserved_bytes - facts.allocated_bytes;
  std::ostringstream text;
  text << c10::DeviceTypeName(device.type(), /*lower_case=*/true) << " out of memory. Tried to allocate "
       << format_size(facts.requested_bytes) << ". Device " << device << " has a total capacity of " << format_size(facts.total_bytes)
       << " of which " << format_size(facts.free_bytes) << " is free. ";
  if (facts.allowed_bytes < facts.total_bytes) {
    text << format_size(facts.allowed_bytes) << " allowed (set_per_process_memory_fraction); ";
  }
  text << "Of the allocated memory " << format_size(facts.allocated_bytes) << " is allocated by PyTorch, ";
  if (facts.private_pool_bytes != 0) text << "with " << format_size(facts.private_pool_bytes) << " reserved in private pools, ";
  text << "and " << format_size(unallocated) << " is reserved by PyTorch but unallocated.";
  if (unallocated > facts.requested_bytes) {
    text << " The unallocated memory is in pieces: OPENREG_ALLOC_CONF=expandable_segments:True avoids them (docs/memory.md).";
  }
  return text.str();
}

}  // namespace

void attach_out_of_memory_observer(OutOfMemoryObserver observer) {
  Observers& all = observers();
  std::lock_guard<std::mutex> lock(all.mutex);
  all.list.push_back(std::move(observer));
}

void throw_out_of_memory(const OutOfMemory& facts) {
  c10::reportOutOfMemoryToProfiler(static_cast<int64_t>(facts.requested_bytes), facts.allocated_bytes, facts.reserved_bytes,
                                   {c10::DeviceType::PrivateUse1, facts.device});
  std::vector<OutOfMemoryObserver> list;
  {
    Observers& all = observers();
    std::lock_guard<std::mutex> lock(all.mutex);
    list = all.list;
  }
  for (const OutOfMemoryObserver& observer : list) {
    observer(facts.device, facts.requested_bytes, facts.allocated_bytes, facts.free_bytes);
  }
  C10_THROW_ERROR(OutOfMemoryError, sentence(facts));
}

}  // namespace openreg
